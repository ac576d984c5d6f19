"""From the stream to SQL on a real Redis-compatible server: exactly once, through
crashes, poison entries and outages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from libs.common.contracts.events import StreamedEvent, encode
from libs.common.errors import RedisAway, StoreAway
from libs.common.redis import keys
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.routing.types import Owner
from libs.common.store.factory import open_store
from libs.common.store.interface import DeadLetter, Unstorable, Write
from libs.common.store.store import Store
from services.ingest.backoff import Backoff
from services.ingest.batch import BatchRule
from services.ingest.consumer import Consumer, ConsumerOptions
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually
from tests.support.values.consuming import running
from tests.support.values.telemetry import decision_event, request_event, streamed

pytestmark = pytest.mark.asyncio

STREAM, GROUP = "telemetry:events", "workers"


@pytest.fixture
def stream(redis: Redis) -> TelemetryStream:
    return TelemetryStream(redis, STREAM, GROUP)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/proxy.sqlite3"


class Gate:
    """A store that can be made unreachable, fail, or hold a write open."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.shut = False
        self.refused: set[str] = set()
        self.calls = 0
        self.after_commit: Callable[[], Awaitable[None]] | None = None

    def prepare(self, events: Sequence[StreamedEvent]) -> Write:
        return partial(self._write, self._store.prepare(events), events)

    async def _write(self, write: Write, events: Sequence[StreamedEvent]) -> int:
        self.calls += 1
        if self.shut:
            raise StoreAway
        if self.refused & {event.id for event in events}:
            raise Unstorable("refused on purpose")
        stored = await write()
        if self.after_commit:
            await self.after_commit()
        return stored

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        return await self._store.write_dead_letters(letters)


@pytest.fixture
def gate(store: Store) -> Gate:
    return Gate(store)


def consumer(
    stream: TelemetryStream, sink: Gate, name: str = "one", claim_s: float = 30
) -> Consumer:
    rule = BatchRule(size=500, max_age_s=0.01)
    return Consumer(
        stream, sink, ConsumerOptions(name, rule, claim_s, Backoff(0.01, 0.05))
    )


async def append(stream: TelemetryStream, *ids: str) -> None:
    """Append one request per id, all of one session."""
    for id_ in ids:
        event = request_event(id_, session_id="s", total_tokens=1)
        await stream.append("request", id_, encode(event))


async def drained(stream: TelemetryStream) -> bool:
    return await stream.depth() == 0


async def all_stored(stream: TelemetryStream) -> None:
    await eventually(lambda: drained(stream))


def requests(url: str) -> list[str]:
    return [id_ for (id_,) in fetch(url, "SELECT id FROM requests ORDER BY id")]


def session(url: str) -> tuple[int, int]:
    ((count, tokens),) = fetch(url, "SELECT requests, total_tokens FROM sessions")
    return count, tokens


async def pending(redis: Redis) -> int:
    summary = await redis.xpending(STREAM, GROUP)
    return int(summary["pending"])


async def test_ten_thousand_events_are_stored_once(
    redis: Redis, stream: TelemetryStream, gate: Gate, url: str
) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for n in range(5_000):
            request = request_event(f"r{n}", session_id=f"s{n % 50}", total_tokens=2)
            decision = decision_event(f"r{n}")
            for event in (streamed(request), streamed(decision, f"d{n}")):
                pipe.xadd(
                    STREAM,
                    {
                        "kind": event.kind,
                        "id": event.id,
                        "v": 1,
                        "data": event.json,
                    },
                )
        await pipe.execute()
    async with running(consumer(stream, gate), consumer(stream, gate, "two")):
        await all_stored(stream)
    assert fetch(url, "SELECT count(*), count(DISTINCT id) FROM requests") == [
        (5_000, 5_000)
    ]
    assert fetch(url, "SELECT count(*) FROM decisions") == [(5_000,)]
    assert fetch(url, "SELECT DISTINCT requests, total_tokens FROM sessions") == [
        (100, 200)
    ]
    assert await pending(redis) == 0


async def test_killed_between_commit_and_acknowledgement(
    redis: Redis, stream: TelemetryStream, gate: Gate, url: str
) -> None:
    committed = asyncio.Event()

    async def hang() -> None:
        committed.set()
        await asyncio.Event().wait()

    gate.after_commit = hang
    await append(stream, "a", "b")
    killed = asyncio.create_task(consumer(stream, gate).run(asyncio.Event()))
    await asyncio.wait_for(committed.wait(), 60)
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    first = requests(url)
    assert first
    assert await stream.depth() == 2

    gate.after_commit = None
    async with running(consumer(stream, gate, "two", claim_s=0.02)):
        await all_stored(stream)
    assert requests(url) == ["a", "b"]
    assert session(url) == (2, 2)
    assert await pending(redis) == 0


async def test_what_a_dead_consumer_read_is_claimed(
    stream: TelemetryStream, gate: Gate, url: str
) -> None:
    await append(stream, "a", "b", "c")
    await stream.read("dead", 2, 1)  # creates the group
    assert len(await stream.read("dead", 2, 1)) == 2
    async with running(consumer(stream, gate, "alive", claim_s=0.02)):
        await all_stored(stream)
    assert requests(url) == ["a", "b", "c"]


async def test_what_a_live_consumer_holds_is_left_alone(
    stream: TelemetryStream,
) -> None:
    await append(stream, "a")
    await stream.read("slow", 1, 1)
    assert len(await stream.read("slow", 1, 1)) == 1
    assert await stream.claim("other", 10, 60_000) == []


async def test_poison_is_parked_and_the_rest_stored(
    redis: Redis, stream: TelemetryStream, gate: Gate, store: Store, url: str
) -> None:
    await append(stream, "a")
    await stream.append("request", "bad", "{")
    await redis.xadd(STREAM, {"what": "is this"})
    await append(stream, "b")
    async with running(consumer(stream, gate)):
        await all_stored(stream)
    assert requests(url) == ["a", "b"]
    parked = fetch(url, "SELECT event_id, reason FROM dead_letters ORDER BY event_id")
    assert [(id_, reason[:12]) for id_, reason in parked] == [
        (None, "missing fiel"),
        ("bad", "data: Input "),
    ]
    letters: Any = await redis.xrange(keys.dead_letters(STREAM))
    assert {fields.get(b"event_id") for _, fields in letters} == {None, b"bad"}
    counts = await store.counts()
    assert (counts.requests, counts.dead_letters, counts.dead_requests) == (2, 2, 1)


async def test_poison_only_the_database_sees_is_found_by_halving(
    stream: TelemetryStream, gate: Gate, url: str
) -> None:
    ids = [f"r{n:03}" for n in range(100)]
    gate.refused = {"r013", "r077"}
    await append(stream, *ids)
    async with running(consumer(stream, gate)):
        await all_stored(stream)
    assert requests(url) == [id_ for id_ in ids if id_ not in gate.refused]
    parked = fetch(url, "SELECT event_id, reason FROM dead_letters ORDER BY 1")
    assert parked == [("r013", "refused on purpose"), ("r077", "refused on purpose")]


async def test_nothing_is_acknowledged_while_the_database_is_away(
    stream: TelemetryStream, gate: Gate, url: str
) -> None:
    gate.shut = True
    await append(stream, "a", "b")
    working = consumer(stream, gate)
    async with running(working):

        async def tried() -> bool:
            return gate.calls > 2

        await eventually(tried)
        assert "store" in working.away
        await append(stream, "c")
        assert await stream.depth() == 3
        assert requests(url) == []
        gate.shut = False
        await all_stored(stream)
        assert working.away == {}
    assert requests(url) == ["a", "b", "c"]


async def test_stopping_while_the_database_is_away_keeps_the_events(
    redis: Redis, stream: TelemetryStream, gate: Gate
) -> None:
    gate.shut = True
    await append(stream, "a")
    async with running(consumer(stream, gate)):

        async def tried() -> bool:
            return gate.calls > 0

        await eventually(tried)
    assert await stream.depth() == 1
    assert (
        await pending(redis) == 1
    )  # the consumer stays, so its entries can be claimed
    assert await redis.xinfo_consumers(STREAM, GROUP)


async def test_a_consumer_that_stops_in_peace_leaves_no_trace(
    redis: Redis, stream: TelemetryStream, gate: Gate
) -> None:
    await append(stream, "a")
    async with running(consumer(stream, gate)):
        await all_stored(stream)
    assert await redis.xinfo_consumers(STREAM, GROUP) == []


async def test_redis_came_back_empty(
    redis: Redis, stream: TelemetryStream, gate: Gate, url: str
) -> None:
    async with running(consumer(stream, gate, claim_s=0.02)):
        await append(stream, "a")
        await all_stored(stream)
        await redis.flushall()
        await append(stream, "a", "b")  # resent by the gateways
        await all_stored(stream)
    assert requests(url) == ["a", "b"]
    assert session(url) == (2, 2)


async def test_redis_goes_away_and_comes_back(
    tmp_path: Path, gate: Gate, url: str
) -> None:
    port = free_port()
    async with connect(f"redis://127.0.0.1:{port}/0") as client:
        stream = TelemetryStream(client, STREAM, GROUP)
        with pytest.raises(RedisAway):
            await stream.depth()
        working = consumer(stream, gate)
        async with running(working):

            async def noticed() -> bool:
                return "redis" in working.away

            await eventually(noticed)
            with running_valkey(tmp_path, port):
                await append(stream, "a")
                await all_stored(stream)
            await eventually(noticed)
            with running_valkey(tmp_path, port):
                await append(stream, "b")
                await all_stored(stream)
    assert requests(url) == ["a", "b"]


async def test_minted_ids_lead_to_their_account_once_stored(
    stream: TelemetryStream, gate: Gate, store: Store
) -> None:
    served = {"resource_id": "openai-2", "account_id": "acct-b", "session_id": "s"}
    event = request_event("a", minted=("resp_a", "conv_a", "x" * 600), **served)
    for _ in range(2):
        await stream.append("request", "a", encode(event))
    async with running(consumer(stream, gate)):
        await all_stored(stream)
    owner = Owner("openai-2", "acct-b")
    found = await store.owners(["conv_a", "resp_a", "x" * 600, "resp_b"])
    assert found == {"conv_a": owner, "resp_a": owner}
    assert await store.session_owner("s") == owner


async def test_postgres_stores_the_same(
    stream: TelemetryStream, postgres_url: str
) -> None:
    store = open_store(postgres_url)
    await store.migrate()
    await append(stream, "a", "b", "a")
    nul = encode(request_event("nul", session_id="a\0b"))
    await stream.append("request", "nul", nul)
    minted = request_event("minted", resource_id="one", minted=("resp_1", "rs_\0 1"))
    await stream.append("request", "minted", encode(minted))
    async with running(consumer(stream, Gate(store))):
        await all_stored(stream)
    assert len(await store.owners(["resp_1", "rs_ 1"])) == 2
    await store.close()
    assert requests(postgres_url) == ["a", "b", "minted", "nul"]
    assert fetch(postgres_url, "SELECT session_id FROM requests WHERE id = 'nul'") == [
        ("ab",)
    ]
