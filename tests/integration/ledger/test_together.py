"""PROXY_IN_PROCESS_WORKER=true: `responses-proxy gateway` also runs ingest."""

import os
import signal
import sys
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from libs.common.contracts.events import encode
from libs.common.redis.telemetry_stream import TelemetryStream
from tests.support.databases.sql import fetch
from tests.support.preloaded import programs
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, running
from tests.support.processes.waiting import eventually
from tests.support.values.telemetry import request_event

pytestmark = pytest.mark.asyncio

COMMAND = [sys.executable, "-c", programs.RUN, "gateway"]
STREAM, GROUP = "telemetry:events", "responses-proxy-workers"


class Together:
    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/proxy.sqlite3"
        self.gateway_port, self.ingest_port = free_port(), free_port()
        self.environ = {
            "PROXY_IN_PROCESS_WORKER": "true",
            "PROXY_REDIS_URL": redis_url,
            "PROXY_SQLITE_URL": self.url,
            "PROXY_DATA_DIR": str(folder),
            "PROXY_PORT": str(self.gateway_port),
            "PROXY_INGEST_PORT": str(self.ingest_port),
            "PROXY_DRAIN_SECONDS": "3",
            "PROXY_INGEST_CLAIM_SECONDS": "0.5",  # claims of a killed ingest
            "OPENAI_API_KEY": "sk-test",
        }

    def start(self) -> Process:
        return Process(COMMAND, self.environ, self.folder / "together.log")

    @property
    def ready_url(self) -> str:
        return f"http://127.0.0.1:{self.ingest_port}/readyz"

    async def answers(self, port: int) -> bool:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            try:
                url = f"http://127.0.0.1:{port}/healthz"
                return (await client.get(url)).status_code == 200
            except httpx.HTTPError:
                return False

    async def both_answer(self) -> bool:
        ports = (self.gateway_port, self.ingest_port)
        return all([await self.answers(port) for port in ports])

    async def neither_answers(self) -> bool:
        ports = (self.gateway_port, self.ingest_port)
        return not any([await self.answers(port) for port in ports])

    def stored(self) -> list[str]:
        rows = fetch(self.url, "SELECT id FROM requests ORDER BY id")
        return [id_ for (id_,) in rows]


@pytest.fixture
def together(tmp_path: Path, valkey: str) -> Together:
    return Together(tmp_path, valkey)


async def append(redis: Redis, id_: str) -> None:
    stream = TelemetryStream(redis, STREAM, GROUP)
    await stream.append("request", id_, encode(request_event(id_)))


def child(pid: int, module: str) -> int:
    """The child of `pid` that runs `module`."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = [
        int(number)
        for number in children
        if module.encode() in Path(f"/proc/{number}/cmdline").read_bytes()
    ]
    return found


async def emptied(redis: Redis) -> bool:
    return not await redis.xlen(STREAM)


async def test_ingest_stores_is_started_again_and_ends_last(
    together: Together, redis: Redis
) -> None:
    with running(together.start(), together.ready_url) as process:
        await eventually(together.both_answer)
        await append(redis, "a")
        await eventually(lambda: emptied(redis))
        os.kill(child(process.pid, "services.ingest"), signal.SIGKILL)
        await append(redis, "b")
        await eventually(together.both_answer)
        await eventually(lambda: emptied(redis))
        assert together.stored() == ["a", "b"]
        assert process.end(signal.SIGTERM) == 0
    assert await together.neither_answers()


async def test_killed_outright_it_leaves_nobody_behind(together: Together) -> None:
    process = together.start()
    try:
        await eventually(together.both_answer)
    finally:
        process.kill()
    await eventually(together.neither_answers)
