"""Clients that go on asking while Redis changes, and whether all services follow."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import httpx

from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet
from tests.support.processes.waiting import eventually

CALLERS = 6


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

        await eventually(more)


@asynccontextmanager
async def load_on(gateways: Sequence[str]) -> AsyncIterator[Load]:
    load = Load(gateways)
    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(load.keep_asking(number))
        await load.went_on()
        yield load
        load.over = True


async def followed(
    fleet: Fleet, everybody: Sequence[str], within_s: float = 60
) -> None:
    """Returns when nobody says that Redis is away."""
    async with httpx.AsyncClient(timeout=60) as http:
        for origin in everybody:
            await eventually(partial(_well, http, origin), within_s)
    degraded = (await fleet.state())["degraded"]
    assert not any("redis" in what for what in degraded)


async def _well(http: httpx.AsyncClient, origin: str) -> bool:
    answer = await http.get(f"{origin}/readyz")
    return answer.status_code == 200 and "redis" not in "".join(
        answer.json()["degraded"]
    )


async def closed(fleet: Fleet, asked: int) -> bool:
    """Whether the ledger is balanced, with this many requests and none open."""
    async with httpx.AsyncClient(timeout=60) as http:
        ledger = (await http.get(f"{fleet.admin}/ledger")).json()
    open_ = ledger["pending"], ledger["in_flight"], ledger["dead_lettered"]
    even = ledger["accepted"] == ledger["stored"] == asked and open_ == (0, 0, 0)
    return even and bool(ledger["balanced"])


async def settled(fleet: Fleet, load: Load) -> None:
    """Returns when each answered request is stored exactly once, and nothing else."""
    assert load.failed == {}
    await eventually(lambda: closed(fleet, len(load.answered)))
    rows = fetch(fleet.database, "SELECT id, outcome FROM requests")
    assert sorted(rows) == sorted((id_, "completed") for id_ in load.answered)
    assert await fleet.in_flight() == {}
