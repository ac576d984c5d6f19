"""`responses-proxy up`: from nothing to an answer, and back to nothing."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.valkey import free_port

COMMAND = [sys.executable, "-c", "from libs.cli.main import run; run()"]
ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 20.0  # it takes 2 to 4; CI machines are slow
STOP_SECONDS = 15.0
SERVICES = ("PROXY_PORT", "PROXY_ROUTER_PORT", "PROXY_HEALTH_PORT", "PROXY_INGEST_PORT")


class Up:
    """A running `up`, its output and everything it started."""

    def __init__(self, environ: Mapping[str, str], output: Path) -> None:
        self.environ = environ
        self._output = output
        with output.open("wb") as sink:
            self.process = subprocess.Popen(
                [*COMMAND, "up"], env=environ, stdout=sink, stderr=sink, cwd=ROOT
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def data_dir(self) -> str:
        return self.environ["PROXY_DATA_DIR"]

    def wait_until_ready(self) -> None:
        until(lambda: "Try it" in self.output, READY_SECONDS, self.output_or_logs)

    def output_or_logs(self) -> str:
        logs = Path(self.data_dir, "logs").glob("*.log")
        return self.output + "".join(f"\n{p}\n{p.read_text()[-1500:]}" for p in logs)

    def children(self) -> list[int]:
        return descendants(self.process.pid)


def until(
    condition: Callable[[], object], seconds: float, explain: Callable[[], str]
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, from /proc."""
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
    """None for a process that is gone, or dead and not yet reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent = stat.rpartition(") ")[2].split()[:2]
    return None if state == "Z" else int(parent)


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    """Free ports, a fresh data directory, and nothing else of ours."""
    bare = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROXY_", "OPENAI_")) and "DATABASE_URL" not in name
    }
    ports = {variable: str(free_port()) for variable in SERVICES}
    return bare | ports | {"PROXY_DATA_DIR": str(tmp_path / "data")} | settings


@contextmanager
def running(environ: Mapping[str, str], tmp_path: Path) -> Iterator[Up]:
    up = Up(environ, tmp_path / "output")
    try:
        yield up
    finally:
        left = up.children()
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait(5)
        for pid in left:
            with_pid_gone(pid)


def with_pid_gone(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def refused(environ: Mapping[str, str], *command: str) -> str:
    """Run a command that must refuse; its one line."""
    done = subprocess.run(
        [*COMMAND, *command],
        env=environ,
        capture_output=True,
        text=True,
        timeout=20,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that is ready, without any configuration but its ports."""
    tmp_path = tmp_path_factory.mktemp("up")
    with running(environment(tmp_path), tmp_path) as up:
        up.wait_until_ready()
        yield up


def test_it_says_what_it_chose(up: Up) -> None:
    assert "SIMULATED upstream (no OPENAI_API_KEY set)" in up.output
    assert "proxy.sqlite3" in up.output
    assert "redis://127.0.0.1:" in up.output
    assert f"{up.data_dir}/logs" in up.output


def test_the_printed_request_is_answered(up: Up) -> None:
    (line,) = [line for line in up.output.splitlines() if line.startswith("  curl ")]
    _, url, _, header, _, body = shlex.split(line)
    name, _, value = header.partition(": ")

    answer = httpx.post(url, headers={name: value}, content=body, timeout=20)

    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed"
    assert answer.headers["x-proxy-resource-id"].startswith("openai-")


def test_every_service_is_ready(up: Up) -> None:
    for variable in SERVICES:
        answer = httpx.get(f"http://127.0.0.1:{up.environ[variable]}/readyz", timeout=5)
        assert answer.status_code == 200, f"{variable}: {answer.text}"


def test_a_second_one_on_the_same_data_refuses(up: Up, tmp_path: Path) -> None:
    environ = environment(tmp_path, PROXY_DATA_DIR=up.data_dir)

    line = refused(environ, "up")

    assert line.startswith("responses-proxy: PROXY_DATA_DIR: ")
    assert "another `responses-proxy up` uses" in line


@pytest.mark.parametrize("command", ["up", "gateway"])
def test_a_port_that_is_taken(up: Up, tmp_path: Path, command: str) -> None:
    environ = environment(tmp_path, PROXY_PORT=up.environ["PROXY_PORT"])

    assert refused(environ, command).startswith("responses-proxy: PROXY_PORT: ")


@pytest.mark.parametrize("command", ["up", "gateway", "router", "health", "ingest"])
def test_a_setting_that_makes_no_sense(tmp_path: Path, command: str) -> None:
    environ = environment(tmp_path, OPENAI_API_KEYS="sk-hush hush")

    line = refused(environ, command)

    assert line.startswith("responses-proxy: OPENAI_API_KEYS: ")
    assert "hush" not in line


def test_an_open_admin_beyond_loopback(tmp_path: Path) -> None:
    environ = environment(tmp_path, PROXY_HOST="0.0.0.0")

    assert "PROXY_ADMIN_TOKEN" in refused(environ, "up")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    with running(environment(tmp_path), tmp_path) as up:
        up.wait_until_ready()
        pids = [up.process.pid, *up.children()]

        up.process.send_signal(number)

        assert up.process.wait(STOP_SECONDS) == 0
        assert [pid for pid in pids if parent_of(pid)] == []


def test_kill_9_leaves_nothing_behind(tmp_path: Path) -> None:
    with running(environment(tmp_path), tmp_path) as up:
        up.wait_until_ready()
        pids = up.children()

        up.process.kill()

        def left() -> list[int]:
            return [pid for pid in pids if parent_of(pid)]

        until(lambda: not left(), STOP_SECONDS, lambda: f"left: {left()}")


def test_a_service_that_cannot_start_ends_everything(tmp_path: Path) -> None:
    # Nothing listens there, and ingest cannot make its tables.
    database = tmp_path / "a-directory"
    database.mkdir()
    environ = environment(tmp_path, PROXY_SQLITE_URL=f"sqlite:///{database}")
    with running(environ, tmp_path) as up:
        assert up.process.wait(60) == 1

        assert re.search(r"responses-proxy: \w+ (could not|is not)", up.output)
        assert "stopping everything" in up.output
        assert up.children() == []


def test_doctor_finds_nothing_wrong_with_no_configuration(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "doctor"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout


def test_doctor_names_what_is_wrong_and_no_secret(tmp_path: Path) -> None:
    port = free_port()
    environ = environment(
        tmp_path,
        OPENAI_API_KEY="sk-hush",
        PROXY_UPSTREAM_BASE_URL=f"http://127.0.0.1:{port}/v1",
        PROXY_REDIS_URL=f"redis://:hush@127.0.0.1:{port}/0",
        PROXY_DATABASE_URL=f"postgresql://u:hush@127.0.0.1:{port}/d",
    )
    done = subprocess.run(
        [*COMMAND, "doctor"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split()[1] for line in failed] == ["redis", "database", "upstream"]
    assert "hush" not in done.stdout + done.stderr
