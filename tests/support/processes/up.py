"""The whole product as a user starts it: `responses-proxy up`, on free ports, with
access to everything it started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support.preloaded import programs
from tests.support.processes.ports import free_port
from tests.support.processes.processes import ROOT, bare_environment, status

COMMAND = [sys.executable, "-c", "from libs.cli.main import run; run()"]
# Usually 2 to 4 s; only a failure takes that long.
READY_SECONDS, STOP_SECONDS = 90.0, 60.0
SERVICES = ("PROXY_PORT", "PROXY_ROUTER_PORT", "PROXY_HEALTH_PORT", "PROXY_INGEST_PORT")


def ran(environ: Mapping[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """A command that ends, as a fork of a process that has imported it."""
    return programs.completed([*COMMAND, *words], environ, ROOT)


class Up:
    """A running `up`, its output and its processes."""

    def __init__(
        self,
        environ: Mapping[str, str],
        output: Path,
        command: Sequence[str] = (*COMMAND, "up"),
    ) -> None:
        self.environ = environ
        self._output = output
        with output.open("wb") as sink:
            self.process = subprocess.Popen(
                command, env=environ, stdout=sink, stderr=sink, cwd=ROOT
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def data_dir(self) -> str:
        return self.environ["PROXY_DATA_DIR"]

    def wait_until_ready(self) -> None:
        """Until the banner is there and all services serve: on a busy machine the
        banner does not wait for all of them."""
        until(lambda: "Try it" in self.output, READY_SECONDS, self.output_or_logs)
        self.all_answer("/healthz")

    def all_answer(self, path: str) -> None:
        """Wait until every service answers with 200 there."""
        for variable in SERVICES:
            url = f"http://127.0.0.1:{self.environ[variable]}{path}"
            until(partial(_is_well, url), READY_SECONDS, self.output_or_logs)

    def output_or_logs(self) -> str:
        logs = Path(self.data_dir, "logs").glob("*.log")
        return self.output + "".join(f"\n{p}\n{p.read_text()[-1500:]}" for p in logs)

    @property
    def url(self) -> str:
        """The gateway's address, with /v1."""
        return f"http://127.0.0.1:{self.environ['PROXY_PORT']}/v1"

    @property
    def admin(self) -> str:
        """The admin API's address, through the gateway."""
        return f"http://127.0.0.1:{self.environ['PROXY_PORT']}/admin"

    @property
    def database(self) -> str:
        """The URL of the database in use."""
        sqlite = f"sqlite:///{self.data_dir}/proxy.sqlite3"
        return self.environ.get("PROXY_DATABASE_URL", sqlite)

    def children(self) -> list[int]:
        return descendants(self.process.pid)


def _is_well(url: str) -> bool:
    return status(url) == 200


def until(
    condition: Callable[[], object], seconds: float, explain: Callable[[], str]
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Every descendant of `pid`, from /proc."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := parent_of(int(entry.name))):
            parents.setdefault(parent, []).append(int(entry.name))
    found, pending = [], [pid]
    while pending:
        children = parents.get(pending.pop(), [])
        found += children
        pending += children
    return found


def parent_of(pid: int) -> int | None:
    """None for a process that is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = stat.rpartition(") ")[2].split()[:2]
    return None if state == "Z" else int(parent)


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    """Free ports, a new data directory, and no other settings of ours."""
    ports = {variable: str(free_port()) for variable in SERVICES}
    own = ports | {"PROXY_DATA_DIR": str(tmp_path / "data")} | settings
    return bare_environment() | own


@contextmanager
def running(
    environ: Mapping[str, str],
    tmp_path: Path,
    command: Sequence[str] = (*COMMAND, "up"),
) -> Iterator[Up]:
    up = Up(environ, tmp_path / "output", command)
    try:
        yield up
    finally:
        left = up.children()
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait(60)
        for pid in left:
            with_pid_gone(pid)


def with_pid_gone(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
