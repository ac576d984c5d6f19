"""`python -m services.ingest` as supervisord runs it."""

import os
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from libs.common.contracts.events import encode
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.store.factory import open_store
from services.ingest.priority import FEW_CPUS
from tests.support.clients.scrapes import Scraped
from tests.support.databases.postgres import running_postgres
from tests.support.databases.sql import execute, fetch, setting
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, running, wait_for
from tests.support.processes.waiting import eventually
from tests.support.values.telemetry import request_event

pytestmark = pytest.mark.asyncio

COMMAND = [sys.executable, "-m", "services.ingest"]
STREAM, GROUP = "telemetry:events", "responses-proxy-workers"


class Ingest:
    """How to start ingest, and its address."""

    def __init__(self, folder: Path, redis_url: str, database_url: str) -> None:
        self._folder = folder
        self.port = free_port()
        self.environ = {
            "PROXY_REDIS_URL": redis_url,
            "PROXY_INGEST_PORT": str(self.port),
            "PROXY_INGEST_CLAIM_SECONDS": "0.3",
            "PROXY_DRAIN_SECONDS": "5",
            **setting(database_url),
        }

    def start(self) -> Process:
        return Process(COMMAND, self.environ, self._folder / "ingest.log")

    @property
    def ready_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/readyz"

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=10) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/proxy.sqlite3"


async def append(redis: Redis, *ids: str) -> None:
    stream = TelemetryStream(redis, STREAM, GROUP)
    for id_ in ids:
        await stream.append("request", id_, encode(request_event(id_)))


async def emptied(redis: Redis) -> bool:
    return not await redis.xlen(STREAM)


def stored(url: str) -> list[str]:
    return [id_ for (id_,) in fetch(url, "SELECT id FROM requests ORDER BY id")]


async def test_from_start_to_sigterm(
    tmp_path: Path, valkey: str, redis: Redis, url: str
) -> None:
    ingest = Ingest(tmp_path, valkey, url)
    await append(redis, "a")
    with running(ingest.start(), ingest.ready_url) as process:
        await eventually(lambda: emptied(redis))
        assert stored(url) == ["a"]
        counted = 'proxy_ingest_events_total{kind="request"} 1.0'
        assert counted in (await ingest.get("/metrics")).text
        assert process.end(signal.SIGTERM) == 0
    assert await redis.xinfo_consumers(STREAM, GROUP) == []


async def test_killed_and_started_again(
    tmp_path: Path, valkey: str, redis: Redis, url: str
) -> None:
    ingest = Ingest(tmp_path, valkey, url)
    first = ingest.start()
    wait_for(first, ingest.ready_url)
    ids = [f"r{n:04}" for n in range(2_000)]
    await append(redis, *ids)
    first.kill()
    with running(ingest.start(), ingest.ready_url):
        await eventually(lambda: emptied(redis))
    assert stored(url) == ids


@pytest.mark.skipif(
    not 1 < len(os.sched_getaffinity(0)) <= FEW_CPUS, reason="needs two or three CPUs"
)
async def test_it_runs_on_one_cpu_unless_it_is_behind(
    tmp_path: Path, valkey: str, redis: Redis, url: str
) -> None:
    ingest, allowed = Ingest(tmp_path, valkey, url), os.sched_getaffinity(0)
    with running(ingest.start(), ingest.ready_url) as process:

        async def runs_on(chosen: set[int]) -> bool:
            found = set()
            for thread in os.listdir(f"/proc/{process.pid}/task"):
                with suppress(ProcessLookupError):  # it has ended
                    found.add(frozenset(os.sched_getaffinity(int(thread))))
            return found == {frozenset(chosen)}

        assert await runs_on({max(allowed)})
        old_ms = int(time.time() * 1000) - 60_000
        event: dict[Any, Any] = {"kind": "request", "id": "a", "v": "1"}
        event["data"] = encode(request_event("a"))
        await redis.xadd(STREAM, event, id=f"{old_ms}-1")
        await eventually(lambda: runs_on(allowed))
        await append(redis, "b")
        await eventually(lambda: runs_on({max(allowed)}))
    assert stored(url) == ["a", "b"]


async def stored_by(ingest: Ingest) -> float:
    """How many requests this process has stored."""
    text = (await ingest.get("/metrics")).text
    counter = 'proxy_ingest_events_total{kind="request"}'
    found = re.search(rf"^{counter} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_several_processes_share_the_work(
    tmp_path: Path, valkey: str, redis: Redis, database: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    fixture = "url" if database == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(fixture)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one, two = (Ingest(folder, valkey, url) for folder in folders)
    with running(one.start(), one.ready_url), running(two.start(), two.ready_url):
        sent: list[str] = []

        async def both_work() -> bool:
            ids = [f"r{len(sent) + n:06}" for n in range(200)]
            await append(redis, *ids)
            sent.extend(ids)
            return all([await stored_by(each) > 0 for each in (one, two)])

        await eventually(both_work)
        await eventually(lambda: emptied(redis))
        shares = [await stored_by(each) for each in (one, two)]
    assert stored(url) == sent
    # A slow process's entries are claimed by the other: written twice, stored once.
    assert sum(shares) >= len(sent)
    counted = fetch(url, "SELECT total FROM totals WHERE name = 'requests'")
    assert counted == [(len(sent),)]


async def test_redis_and_database_come_later(tmp_path: Path) -> None:
    redis_port, sql_port = free_port(), free_port()
    url = f"postgresql://postgres@127.0.0.1:{sql_port}/postgres"
    ingest = Ingest(tmp_path, f"redis://127.0.0.1:{redis_port}/0", url)
    process = ingest.start()
    try:
        wait_for(process, f"http://127.0.0.1:{ingest.port}/healthz")
        answer = await ingest.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["degraded"] == ["redis", "sql", "schema"]

        async def told() -> bool:
            return bool(process.logged("store_away"))

        await eventually(told)
        away = Scraped((await ingest.get("/metrics")).text)
        assert away.value("proxy_sql_up") == 0  # DatabaseDown
        with (
            running_valkey(tmp_path, redis_port) as redis_url,
            running_postgres(sql_port),
        ):
            wait_for(process, ingest.ready_url)
            async with connect(redis_url) as redis:
                await append(redis, "a")
                await eventually(lambda: emptied(redis))
            assert stored(url) == ["a"]
            back = Scraped((await ingest.get("/metrics")).text)
            assert back.value("proxy_sql_up") == back.value("proxy_redis_up") == 1
            partitions = (
                "SELECT 1 FROM pg_inherits WHERE inhparent = 'requests'::regclass"
            )
            assert (
                len(fetch(url, partitions)) == 10
            )  # nine days and the default partition
            assert process.end(signal.SIGTERM) == 0
    finally:
        if process.alive:
            process.kill()


async def test_a_setting_that_makes_no_sense(tmp_path: Path, url: str) -> None:
    ingest = Ingest(tmp_path, "http://nowhere", url)
    process = ingest.start()
    assert process.end(signal.SIGCONT) == 2
    assert process.log.read_text().startswith("PROXY_REDIS_URL: is no Redis URL.")


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_a_database_of_a_newer_version_is_left_alone(
    tmp_path: Path, valkey: str, redis: Redis, database: str,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    fixture = "url" if database == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(fixture)
    store = open_store(url)
    await store.migrate()
    await store.close()
    execute(url, "INSERT INTO schema_migrations (version, name) VALUES (99, '0099_x')")
    await append(redis, "a")
    ingest = Ingest(tmp_path, valkey, url)
    process = ingest.start()
    assert process.end(signal.SIGCONT) == 2
    last = process.log.read_text().splitlines()[-1]
    assert last.startswith("The database has schema version 99, but this version ")
    assert stored(url) == []
    assert await redis.xlen(STREAM) == 1
