"""In a process of its own: logging is configured once, for all."""

import json
import subprocess
import sys

SCRIPT = """
import logging, structlog
from libs.common.logs import configure
configure("ingest", "info")
log = structlog.get_logger()
log.debug("too quiet", action="nothing")
log.info("stored", action="stored", count=3)
logging.getLogger("library").info("chatter")
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
