"""Starts and stops our processes in tests, with a limit for each wait."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from libs.cli.commands import PYTHON
from tests.support.preloaded import programs
from tests.support.processes.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
GUARD_S = 60.0  # of a start or an end: only a failure takes that long


class Process:
    """A child process and its log."""

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self.log = log
        environ = {**bare_environment(), **env}
        with log.open("ab") as sink:
            number = sink.fileno()
            self._child: subprocess.Popen[bytes] | programs.Program = programs.start(
                command, environ, ROOT, (number, number)
            ) or subprocess.Popen(
                command,
                env=environ,
                cwd=ROOT,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # so that the whole group can be killed
            )

    def logged(self, action: str, **fields: object) -> list[dict[str, Any]]:
        """Log lines of this action that have these fields."""
        found = []
        for text in self.log.read_text().splitlines():
            with suppress(ValueError):  # the last line may be incomplete
                line: dict[str, Any] = json.loads(text)
                if {**line, "action": action, **fields} == line:
                    found.append(line)
        return found

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def end(self, number: int = signal.SIGTERM, within_s: float = GUARD_S) -> int:
        """Send a signal and wait; returns the exit code. A process that does not exit
        is killed."""
        if self.alive:
            self._child.send_signal(number)
        try:
            return self._child.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end within {within_s} s") from None

    def kill(self) -> None:
        """`kill -9` the process and everything it started."""
        os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait(GUARD_S)


def bare_environment() -> dict[str, str]:
    """The environment without variables that would configure us. The admin API is open
    unless a test sets a token."""
    ours = (
        *("PROXY_", "OPENAI_", "DATABASE_URL", "SERVICE_DATABASE_URL"),
        "SSL_CERT_FILE",  # the tests' own
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return {**kept, "PROXY_ALLOW_OPEN_ADMIN": "true"}


def granian(app: str, port: int) -> list[str]:
    """The command that serves one of our ASGI applications."""
    return [*PYTHON, "libs.cli.process.serve", app, "127.0.0.1", str(port), "10"]


@contextmanager
def ingesting(folder: Path, environ: Mapping[str, str]) -> Iterator[Process]:
    """A running, ready ingest."""
    port = free_port()
    own = {**environ, "PROXY_INGEST_PORT": str(port)}
    command = [sys.executable, "-m", "services.ingest"]
    process = Process(command, own, folder / "ingest.log")
    with running(process, f"http://127.0.0.1:{port}/readyz") as started:
        yield started


@contextmanager
def running(process: Process, url: str) -> Iterator[Process]:
    """A process that is ready once `url` answers 200; stopped when the context ends."""
    try:
        wait_for(process, url)
        yield process
    finally:
        if process.alive:
            process.end()


def wait_for(process: Process, url: str, within_s: float = GUARD_S) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and process.alive:
        if status(url) == 200:
            return
        time.sleep(0.03)
    raise AssertionError(f"{url} is not ready:\n{process.log.read_text()[-3000:]}")


def status(url: str) -> int | None:
    """With the standard library: each client of httpx takes 2 ms of CPU."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=2)
    with closing(connection), suppress(OSError, HTTPException):
        connection.request("GET", parts.path)
        return connection.getresponse().status
    return None
