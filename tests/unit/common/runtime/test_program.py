"""Loading a program: what a start leaves out, and that it is there afterwards."""

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from libs.common.runtime.program import UNUSED, collect_seldom

PROGRAMS = (
    *("libs.cli.command_line", "libs.simulator.process"),
    *("services.gateway.process", "services.health.app", "services.ingest.app"),
    "services.router.app",
)


def printed(code: str, folder: Path) -> Any:
    """What the code prints as JSON, in an interpreter of its own."""
    command = [sys.executable, "-c", code]
    made = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return json.loads(made.stdout)


def test_programs_import_nothing_that_they_do_not_use(tmp_path: Path) -> None:
    loaded = printed(
        "import json, sys\n"
        "from libs.common.runtime.program import load\n"
        f"for name in {PROGRAMS}: load(name)\n"
        "from libs.common.store.factory import open_store\n"
        "open_store('sqlite:///file')\n"
        "print(json.dumps(sorted(sys.modules)))",
        tmp_path,
    )
    assert "services.router.app" in loaded
    unwanted = {*UNUSED, "psycopg", "psycopg_pool", "pydantic_settings", "psutil"}
    assert unwanted.isdisjoint(loaded)


def test_the_command_line_imports_no_client_of_a_server(tmp_path: Path) -> None:
    loaded = printed(
        "import json, sys\n"
        "from libs.common.runtime.program import load\n"
        "load('libs.cli.command_line')\n"
        "print(json.dumps(sorted(sys.modules)))",
        tmp_path,
    )
    assert {"redis", "psycopg", "httpx", "asyncio"}.isdisjoint(loaded)


def test_afterwards_all_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "some_program.py").write_text(
        "import gc\n"
        "collects, found = gc.isenabled(), []\n"
        f"for name in {UNUSED}:\n"
        "    try:\n"
        "        found.append(__import__(name))\n"
        "    except ImportError:\n"
        "        pass\n"
    )
    told = printed(
        "import gc, json\n"
        "from libs.common.runtime.program import load\n"
        "thresholds = gc.get_threshold()\n"
        "made = load('some_program')\n"
        "import click, opentelemetry, rich\n"
        "same = thresholds == gc.get_threshold()\n"
        "print(json.dumps([made.collects, made.found, gc.isenabled(), same]))",
        tmp_path,
    )
    assert told == [False, [], True, True]


def test_an_import_error_is_reported(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        printed(
            "from libs.common.runtime.program import load\nload('no_such_program')",
            tmp_path,
        )
    assert b"No module named 'no_such_program'" in failed.value.stderr


def test_objects_of_now_are_not_looked_through_again() -> None:
    before = gc.get_threshold()
    try:
        collect_seldom(10_000, 50, 100)
        assert gc.get_threshold() == (10_000, 50, 100)
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
