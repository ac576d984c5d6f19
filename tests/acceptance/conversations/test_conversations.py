"""Sixty conversations, many at a time, through two gateways while upstream keys
fail at random: each conversation stays with the account that holds its state."""

import asyncio
import importlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import httpx2
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from libs.simulator.server import RunningSimulator, serve
from libs.simulator.settings import Settings
from tests.support.clients.talk import MODELS, Ears, Gateways, Kind, Talk, client, talks
from tests.support.databases.sql import fetch
from tests.support.processes.chaos import Chaos
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio

KEYS = {f"sk-{account}{n}": f"acct-{account}" for account in "abc" for n in (1, 2)}
CONVERSATIONS = 60
AT_ONCE = 24
SETTINGS = {
    # Failing keys are retried soon, and rejected ones checked often.
    "PROXY_RESOURCE_COOLDOWN_SECONDS": "0.2",
    "PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "0.5",
    # One key of each account may fail, and an emptied Redis forgets which: a request
    # may go to all three first.
    "PROXY_MAX_ATTEMPTS": "4",
}
SERVICES = ("router", "health", "ingest")
STREAM = "telemetry:events"
WITHIN_S = 240.0  # only a failure takes that long
# Each is interfered with once this many have ended, so while the others go on.
SOME, MORE, MOST = 12, 24, 36


@pytest.fixture(scope="module", autouse=True)
def sdk() -> None:
    """Imported before the simulator serves, which would wait for it."""
    importlib.import_module("tests.support.clients.agents_sdk")


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    running = await serve(Settings(keys=KEYS, max_journal_entries=20_000))
    yield running
    await running.close()


@pytest_asyncio.fixture
async def fleet(
    simulator: RunningSimulator, valkey: str, tmp_path: Path
) -> AsyncIterator[Fleet]:
    plan = Plan(KEYS, gateways=2, services=SERVICES, settings=SETTINGS)
    async with running_fleet(plan, simulator, valkey, tmp_path) as fleet:
        yield fleet


@dataclass
class Run:
    """All conversations and their results."""

    gateways: Gateways
    ears: Ears
    ended: int = 0
    broken: dict[str, BaseException] = field(default_factory=dict)
    # Requests that were in flight when Redis was emptied, which has forgotten them.
    forgotten: WeakSet[httpx2.Request] = field(default_factory=WeakSet)

    async def hold(self, seed: int, name: str, kind: Kind) -> None:
        draw = random.Random(f"{seed} {name}")  # noqa: S311 - repeatable
        try:
            await kind(Talk(name, self.gateways, draw, self.ears))
        except Exception as error:  # noqa: BLE001 - told of all at once
            self.broken[name] = error
        self.ended += 1

    async def under_way(self, count: int) -> None:
        """Until so many have ended; AssertionError if none goes on."""

        async def reached() -> bool:
            return self.ended >= count

        await eventually(reached, within_s=WITHIN_S)
        assert self.ended < CONVERSATIONS


Interference = Callable[[Run], Coroutine[Any, Any, None]]


async def hold_all(fleet: Fleet, seed: int, midway: Interference | None = None) -> Run:
    """Run all conversations under chaos, and `midway` at the same time."""
    ears = Ears()
    clients = [client(gateway.url, ears) for gateway in fleet.gateways]
    run = Run(Gateways(clients), ears)
    a_few = asyncio.Semaphore(AT_ONCE)

    async def hold(name: str, kind: Kind) -> None:
        async with a_few:
            await run.hold(seed, name, kind)

    async def idle(key: str) -> bool:
        if any(request in ears.waiting for request in run.forgotten):
            return False
        return fleet.resource(key) not in await fleet.in_flight()

    chaos = Chaos(fleet.simulator, MODELS, seed, idle, fleet.chooses, ears.waiting)
    async with chaos.reigning(KEYS):
        tasks = [hold(name, kind) for name, kind in talks(CONVERSATIONS)]
        if midway is not None:
            tasks.append(midway(run))
        await asyncio.gather(*tasks)
    for opened in clients:
        await opened.close()
    return run


LOST = (400, 404)  # no conversation asks for what does not exist


def assert_well(run: Run, fleet: Fleet) -> None:
    """No client and no gateway asked an account for another account's state."""
    lost = [answer for answer in run.ears.answers if answer.status in LOST]
    assert lost == [], "\n".join(map(str, lost))
    assert set(run.ears.failed) <= {"server_error"}  # the error of a broken stream
    entries = fleet.simulator.state.journal.shown(None, bodies=False)["entries"]
    assert [e for e in entries if e["status"] in LOST] == []
    # How many kinds of faults the seed draws in time depends on the machine.
    faults = {401, 429, 500, 503} & {e["status"] for e in entries}
    assert len(faults) >= 2, "no chaos"
    assert run.broken == {}


async def assert_booked_once(
    fleet: Fleet, run: Run, swept: Collection[str] = ()
) -> None:
    """Each answered request is in SQL once, and nothing else. Requests whose events
    were `swept` away with Redis may be missing."""
    await eventually(fleet.settled)
    rows = fetch(fleet.database, "SELECT id FROM requests")
    stored = Counter(id_ for (id_,) in rows)
    answered = Counter(answer.request_id for answer in run.ears.answers)
    missing = (answered - stored).keys()
    assert missing <= set(swept), f"{len(missing)} missing"
    assert stored - answered == Counter()


@pytest.mark.parametrize("seed", [31])
async def test_conversations_stay_with_their_account_while_keys_fail(
    fleet: Fleet, seed: int
) -> None:
    run = await hold_all(fleet, seed)

    assert_well(run, fleet)
    await assert_booked_once(fleet, run)


@pytest.mark.parametrize("seed", [51])
async def test_conversations_outlive_an_emptied_redis(
    fleet: Fleet, redis: Redis, seed: int
) -> None:
    swept: set[str] = set()

    async def empty_redis(run: Run) -> None:
        for ended in (SOME, MORE, MOST):
            await run.under_way(ended)
            # Without a pause: what one gateway has just learned is not in SQL yet.
            swept.update(await _emptied(redis))
            run.forgotten.update(run.ears.waiting)
            await eventually(lambda: _published(fleet))

    run = await hold_all(fleet, seed, midway=empty_redis)

    assert_well(run, fleet)
    await assert_booked_once(fleet, run, swept)


@pytest.mark.parametrize("seed", [53])
async def test_conversations_outlive_everything_but_sql(
    fleet: Fleet, redis: Redis, seed: int
) -> None:
    """Gateways restart with empty memory and an empty Redis."""

    async def start_anew(run: Run) -> None:
        async def all_paused() -> bool:
            return run.gateways.paused == AT_ONCE

        await run.under_way(SOME)
        run.gateways.open.clear()
        await eventually(all_paused)
        await eventually(fleet.settled)
        for gateway in fleet.gateways:
            await gateway.end()
        await _emptied(redis)
        for gateway in fleet.gateways:
            gateway.start_anew()
            await gateway.ready()
        await eventually(fleet.ready)
        run.gateways.open.set()

    run = await hold_all(fleet, seed, midway=start_anew)

    assert_well(run, fleet)
    await assert_booked_once(fleet, run)


async def _emptied(redis: Redis) -> list[str]:
    """Empty Redis, functions included; returns the requests whose events it held."""
    async with redis.pipeline(transaction=True) as together:
        together.xrange(STREAM)
        together.flushall()
        together.execute_command("FUNCTION", "FLUSH")
        entries: Any = (await together.execute())[0]
    return [f[b"id"].decode() for _, f in entries if f[b"kind"] == b"request"]


async def _published(fleet: Fleet) -> bool:
    """Whether the catalogue is published again."""
    return len((await fleet.state())["resources"]) == len(KEYS)
