"""Hundreds of conversations at once through two gateways while upstream keys fail
at random: each stays where its state is, whatever binds it there."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from libs.common.redis_client import connect
from libs.simulator.server import RunningSimulator, serve
from libs.simulator.settings import Settings
from tests.support.chaos import Chaos
from tests.support.fleet import Fleet, Plan, running_fleet
from tests.support.sql import fetch
from tests.support.talk import MODELS, Ears, Kind, Talk, client, talks
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio

KEYS = {f"sk-{account}{n}": f"acct-{account}" for account in "abc" for n in (1, 2)}
CONVERSATIONS = 300
AT_ONCE = 24
SETTINGS = {
    # Failing keys are tried again soon, and refused ones checked often.
    "PROXY_RESOURCE_COOLDOWN_SECONDS": "0.2",
    "PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "0.5",
}
SERVICES = ("router", "health", "ingest")
STREAM = "telemetry:events"


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


@pytest_asyncio.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    client = connect(valkey)
    yield client
    await client.aclose()


Interference = Callable[[], Awaitable[None]]


@dataclass
class Run:
    """What came of all conversations."""

    ears: Ears = field(default_factory=Ears)
    ended: int = 0
    broken: dict[str, BaseException] = field(default_factory=dict)


async def hold_all(fleet: Fleet, seed: int, midway: Interference | None = None) -> Run:
    """Hold all conversations under chaos; `midway` happens when half have ended."""
    run = Run()
    clients = [client(gateway.url, run.ears) for gateway in fleet.gateways]
    a_few = asyncio.Semaphore(AT_ONCE)
    half = asyncio.Event()

    async def hold(name: str, kind: Kind) -> None:
        draw = random.Random(f"{seed} {name}")  # noqa: S311 - repeatable
        async with a_few:
            try:
                await kind(Talk(name, clients, draw, run.ears))
            except Exception as error:  # noqa: BLE001 - told of all at once
                run.broken[name] = error
        run.ended += 1
        if run.ended >= CONVERSATIONS // 2:
            half.set()

    async def interfere() -> None:
        await half.wait()
        if midway is not None:
            await midway()

    async with Chaos(fleet.simulator, MODELS, seed).reigning(KEYS):
        await asyncio.gather(
            interfere(), *(hold(*talk) for talk in talks(CONVERSATIONS))
        )
    for opened in clients:
        await opened.close()
    return run


LOST = (400, 404)  # nothing here asks for what does not exist


def assert_well(run: Run, fleet: Fleet) -> None:
    """No client and no gateway asked an account for another's state."""
    lost = [answer for answer in run.ears.answers if answer.status in LOST]
    assert lost == [], "\n".join(map(str, lost))
    assert set(run.ears.failed) <= {"server_error"}  # what a broken stream ends in
    entries = fleet.simulator.state.journal.shown(None, bodies=False)["entries"]
    assert [e for e in entries if e["status"] in LOST] == []
    assert {401, 429, 500, 503} <= {e["status"] for e in entries}, "no chaos"
    assert run.broken == {}


async def assert_booked_once(
    fleet: Fleet, run: Run, swept: Collection[str] = ()
) -> None:
    """Each request that was answered is in SQL once, and nothing else; those whose
    events were `swept` away with Redis may be missing."""
    await eventually(fleet.settled, within_s=20)
    rows = fetch(fleet.database, "SELECT id FROM requests")
    stored = Counter(id_ for (id_,) in rows)
    answered = Counter(answer.request_id for answer in run.ears.answers)
    missing = (answered - stored).keys()
    assert missing <= set(swept), f"{len(missing)} missing"
    assert stored - answered == Counter()


@pytest.mark.parametrize("seed", [7])
async def test_conversations_stay_with_their_account_while_keys_fail(
    fleet: Fleet, seed: int
) -> None:
    run = await hold_all(fleet, seed)

    assert_well(run, fleet)
    await assert_booked_once(fleet, run)


@pytest.mark.parametrize("seed", [11])
async def test_conversations_outlive_an_emptied_redis(
    fleet: Fleet, redis: Redis, seed: int
) -> None:
    swept: set[str] = set()

    async def empty_redis() -> None:
        swept.update(await _emptied(redis))

    run = await hold_all(fleet, seed, midway=empty_redis)

    assert_well(run, fleet)
    await assert_booked_once(fleet, run, swept)


async def _emptied(redis: Redis) -> list[str]:
    """Empty Redis, functions included; returns the requests whose events it held."""
    async with redis.pipeline(transaction=True) as together:
        together.xrange(STREAM)
        together.flushall()
        together.execute_command("FUNCTION", "FLUSH")
        entries: Any = (await together.execute())[0]
    return [f[b"id"].decode() for _, f in entries if f[b"kind"] == b"request"]
