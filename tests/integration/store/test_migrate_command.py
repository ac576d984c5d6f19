"""`responses-proxy migrate`, as an operator runs it."""

import subprocess
import sys

from libs.cli.commands import PYTHON
from libs.common.store.migrate import known_migrations
from tests.support.databases.sql import execute, fetch, setting
from tests.support.preloaded import programs
from tests.support.processes.ports import free_port
from tests.support.processes.processes import ROOT


def migrate(url: str, *command: str) -> subprocess.CompletedProcess[str]:
    """What `responses-proxy migrate` executes, or another command."""
    words = command or (*PYTHON, "libs.cli.operations.migrate")
    return programs.completed(words, setting(url), ROOT)


def test_it_says_what_it_did(url: str) -> None:
    done = migrate(url, sys.executable, "-c", programs.RUN, "migrate")
    assert (done.returncode, done.stderr) == (0, "")
    newest = len(known_migrations("sqlite"))
    first, *applied = done.stdout.splitlines()
    assert first.endswith(f": upgraded the schema from version 0 to {newest}")
    assert applied[0] == "applied 0001_initial"
    assert len(applied) == newest

    again = migrate(url)
    assert again.returncode == 0
    assert again.stdout.endswith(f": schema version {newest} is up to date\n")


def test_a_newer_schema_is_left_alone(url: str) -> None:
    migrate(url)
    execute(url, "INSERT INTO schema_migrations (version, name) VALUES (99, '0099_x')")
    done = migrate(url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("responses-proxy: The database has schema version 99")
    assert done.stderr.count("\n") == 1
    assert fetch(url, "SELECT max(version) FROM schema_migrations") == [(99,)]


def test_no_password_is_printed() -> None:
    done = migrate(f"postgresql://me:hush@127.0.0.1:{free_port()}/none")
    assert done.returncode == 1
    assert done.stderr.startswith("responses-proxy: Postgres cannot be used")
    assert "hush" not in done.stdout + done.stderr
