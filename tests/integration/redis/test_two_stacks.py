"""All processes of two stacks on one Redis, with the same upstream keys. Each has its
own database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from libs.simulator.server import RunningSimulator
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.following import load_on, settled
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio

KEYS = {"sk-a1": "a", "sk-b1": "b"}
SERVICES = "router", "health", "ingest"
DEGRADED = "SELECT count(*) FROM decisions WHERE degraded"
STREAMS = "telemetry:events", "telemetry:events:payloads"


@asynccontextmanager
async def stack(
    namespace: str, simulator: RunningSimulator, url: str, folder: Path
) -> AsyncIterator[Fleet]:
    place = folder / namespace
    place.mkdir()
    plan = Plan(KEYS, 1, SERVICES, {"PROXY_REDIS_NAMESPACE": namespace})
    async with running_fleet(plan, simulator, url, place) as fleet:
        await fleet.has_tables()
        yield fleet


async def libraries(redis: Redis) -> set[bytes]:
    listed: Any = await redis.execute_command("FUNCTION", "LIST")  # type: ignore[no-untyped-call]
    return {
        dict(zip(each[::2], each[1::2], strict=True))[b"library_name"]
        for each in listed
    }


async def names(redis: Redis, pattern: str = "*") -> set[str]:
    return {name.decode() async for name in redis.scan_iter(pattern)}


async def checked(fleet: Fleet) -> bool:
    """Whether the health service answers an order of the router. On a busy machine it
    may not take it in time: 503."""
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(f"{fleet.admin}/health/check", json={})
    return answer.status_code == 200


async def test_one_is_emptied_under_load_and_the_other_does_not_notice(
    valkey: str, redis: Redis, tmp_path: Path
) -> None:
    async with (
        Simulator(KEYS) as simulator,
        stack("a", simulator, valkey, tmp_path) as ours,
        stack("b", simulator, valkey, tmp_path) as theirs,
    ):
        async with (
            load_on([ours.gateways[0].url]) as load,
            load_on([theirs.gateways[0].url]) as other,
        ):
            for fleet in (ours, theirs):
                await eventually(partial(checked, fleet))
            found = await names(redis)
            assert {
                name for name in found if not name.startswith(("{a}:", "{b}:"))
            } == set()
            assert {f"{{{n}}}:{stream}" for n in "ab" for stream in STREAMS} <= found
            assert await libraries(redis) == {b"a", b"b"}
            await redis.delete(*await names(redis, "{b}:*"))
            await redis.execute_command("FUNCTION", "DELETE", "b")  # type: ignore[no-untyped-call]
            await load.went_on()
            await other.went_on()

            async def restored() -> bool:
                return await libraries(redis) == {b"a", b"b"}

            await eventually(restored)
            await other.went_on()
        for fleet, sent in ((ours, load), (theirs, other)):
            await settled(fleet, sent)
        assert set(load.answered).isdisjoint(other.answered)
        # Ours never had to route without Redis.
        assert fetch(ours.database, DEGRADED) == [(0,)]
