"""Redis behind Sentinels, under load: all services follow to the new primary."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from tests.support.databases.sentinels import watched_pair
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import HOST, Fleet, Plan, running_fleet
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio

KEYS = {"sk-a1": "a", "sk-a2": "a", "sk-b1": "b", "sk-b2": "b"}
CALLERS = 6
SENTINELS_ASK = {"ping", "info", "publish", "subscribe", "client|setname"}
# After the Sentinel has announced the new primary.
FOLLOWED_WITHIN_S = 60


class Load:
    """Clients that send requests until they are told to stop; each answer must be
    complete."""

    def __init__(self, gateways: Sequence[str]) -> None:
        self._gateways = gateways
        self.answered: list[str] = []  # request ids
        self.failed: Counter[str] = Counter()
        self.over = False

    async def keep_asking(self, number: int) -> None:
        url = f"{self._gateways[number % len(self._gateways)]}/responses"
        body = {"model": "gpt-5.5", "input": "hi", "stream": number % 3 == 0}
        async with httpx.AsyncClient(timeout=60) as http:
            while not self.over:
                answer = await http.post(url, json=body)
                if answer.status_code == 200 and "completed" in answer.text:
                    self.answered.append(answer.headers["x-proxy-request-id"])
                else:
                    self.failed[f"{answer.status_code} {answer.text[-200:]}"] += 1
                await asyncio.sleep(0.02)

    async def went_on(self) -> None:
        """Returns when each client has sent some more requests."""
        enough = len(self.answered) + 5 * CALLERS

        async def more() -> bool:
            return len(self.answered) >= enough

        await eventually(more, within_s=20)


@asynccontextmanager
async def load_on(gateways: Sequence[str]) -> AsyncIterator[Load]:
    load = Load(gateways)
    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(load.keep_asking(number))
        await load.went_on()
        yield load
        load.over = True


async def test_everybody_follows_to_the_new_primary_and_the_ledger_closes(
    tmp_path: Path,
) -> None:
    ports = {f"PROXY_{name}_PORT": str(free_port()) for name in ("HEALTH", "INGEST")}
    plan = Plan(KEYS, 2, ("router", "health", "ingest"), ports)
    services = [f"{HOST}:{port}" for port in ports.values()]
    async with (
        watched_pair(tmp_path) as watched,
        Simulator(KEYS) as simulator,
        running_fleet(plan, simulator, watched.url, tmp_path) as fleet,
    ):
        members = (fleet.router, *fleet.gateways)
        everybody = [*services, *(member.origin for member in members)]
        async with load_on([g.url for g in fleet.gateways]) as load:
            # Nobody may stay connected to a former primary that does not know its new
            # role.
            before = await watched.change_over()
            await eventually(lambda: _left(before.port), FOLLOWED_WITHIN_S)
            await _followed(fleet, everybody)
            await load.went_on()
            await watched.demote(before)
            await watched.kill_primary()
            await _followed(fleet, everybody)
            await load.went_on()
        assert load.failed == {}
        await eventually(lambda: _closed(fleet, len(load.answered)), within_s=30)
        rows = fetch(fleet.database, "SELECT id, outcome FROM requests")
        assert sorted(rows) == sorted((id_, "completed") for id_ in load.answered)
        degraded = "SELECT count(*) FROM decisions WHERE degraded"
        assert fetch(fleet.database, degraded)[0][0] > 0


async def _left(port: int) -> bool:
    """Whether nobody is connected there except us and its replication."""
    async with Redis(port=port) as client:
        clients = await client.client_list()
        assert (await client.info("replication"))["role"] == "master"
    ours = [c for c in clients if c["cmd"] != "client|list" and c["flags"] == "N"]
    busy = [c for c in ours if c["cmd"] not in SENTINELS_ASK]
    return not busy


async def _followed(fleet: Fleet, everybody: Sequence[str]) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        for origin in everybody:
            await eventually(partial(_well, http, origin), FOLLOWED_WITHIN_S)
    degraded = (await fleet.state())["degraded"]
    assert not any("redis" in what for what in degraded)


async def _well(http: httpx.AsyncClient, origin: str) -> bool:
    answer = await http.get(f"{origin}/readyz")
    return answer.status_code == 200 and "redis" not in "".join(
        answer.json()["degraded"]
    )


async def _closed(fleet: Fleet, asked: int) -> bool:
    async with httpx.AsyncClient(timeout=60) as http:
        ledger = (await http.get(f"{fleet.admin}/ledger")).json()
    open_ = ledger["pending"], ledger["in_flight"], ledger["dead_lettered"]
    even = ledger["accepted"] == ledger["stored"] == asked and open_ == (0, 0, 0)
    return even and bool(ledger["balanced"])
