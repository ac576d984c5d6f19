"""In a process of its own: logging is configured once, for all."""

import json
import subprocess
import sys

SCRIPT = """
import logging, structlog
from libs.common.runtime.logs import configure
configure("ingest", "info")
log = structlog.get_logger()
log.debug("too quiet", action="nothing")
log.info("stored", action="stored", count=3)
logging.getLogger("library").info("chatter")
logging.getLogger("psycopg.pool").warning("error connecting, again")
logging.getLogger("library").warning("careful %s", 1)
try:
    raise ValueError("why")
except ValueError:
    log.exception("failed", action="failed")
"""


def test_one_json_object_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    stored, library, failed = map(json.loads, done.stderr.splitlines())
    assert stored.pop("timestamp").endswith("Z")
    assert stored == {
        "action": "stored",
        "message": "stored",
        "count": 3,
        "level": "info",
        "service": "ingest",
    }
    assert (library["action"], library["message"]) == ("library", "careful 1")
    assert "ValueError: why" in failed["exception"]


DEAF = """
import os, sys
from libs.common.runtime.logs import configure
import structlog
configure("gateway", "info")
log = structlog.get_logger()
reading, writing = os.pipe()
os.dup2(writing, 2)
os.close(reading)
os.close(writing)
for _ in range(3):
    log.warning("lost", action="lost")
print("went on")
"""


def test_a_record_that_nobody_reads_harms_nobody() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEAF], capture_output=True, text=True, check=False
    )
    assert done.stdout == "went on\n"
