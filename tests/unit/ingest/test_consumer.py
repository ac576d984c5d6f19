"""The loop from stream to SQL over fakes: nothing is acknowledged before it is stored,
and poison entries never block others. tests/integration/ingest/test_ingest.py uses real
servers."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from libs.common.contracts.events import StreamedEvent, encode
from libs.common.errors import RedisAway, StoreAway
from libs.common.redis.telemetry_stream import Entry
from libs.common.store.interface import DeadLetter, Unstorable, Write
from services.ingest import metrics
from services.ingest.backoff import Backoff
from services.ingest.batch import BatchRule
from services.ingest.consumer import Consumer, ConsumerOptions
from tests.support.processes.waiting import eventually
from tests.support.values.consuming import running
from tests.support.values.telemetry import request_event

pytestmark = pytest.mark.asyncio
AT_ONCE = Backoff(base_s=0.001, cap_s=0.001)


def entry(number: int, request: str = "") -> Entry:
    id_ = request or f"r{number}"
    data = encode(request_event(id_))
    fields = {b"kind": b"request", b"id": id_.encode(), b"v": b"1", b"data": data}
    return Entry(f"{number}-0", fields)


POISON = Entry("9-0", {b"kind": b"request", b"id": b"bad", b"v": b"1", b"data": b"{"})


class Ends:
    """A stream and a store, each of which can be unreachable or fail."""

    def __init__(self, *entries: Entry) -> None:
        self.new = list(entries)
        self.left: list[Entry] = []  # by a consumer that died
        self.redis_fails = self.store_fails = 0  # so many calls
        self.refused: set[str] = set()
        self.hold: asyncio.Event | None = None  # the store's answer
        self.hold_redis: asyncio.Event | None = None  # of acknowledgments
        self.claims: list[int] = []  # the least time that entries are pending
        self.prepared: list[list[str]] = []
        self.stored: list[str] = []
        self.writes: list[int] = []
        self.letters: list[DeadLetter] = []
        self.acknowledged: list[str] = []
        self.parked: list[Mapping[str, str]] = []
        self.gone: list[str] = []
        self.waited: list[int] = []  # for the first entry, each read
        self.counted = 0

    def _redis(self) -> None:
        if self.redis_fails:
            self.redis_fails -= 1
            raise RedisAway("no Redis")

    def _store(self) -> None:
        if self.store_fails:
            self.store_fails -= 1
            raise StoreAway("no SQL")

    async def read(self, consumer: str, count: int, block_ms: int) -> list[Entry]:
        self._redis()
        self.waited.append(block_ms)
        if not self.new:
            await asyncio.sleep(0.002)
        found, self.new = self.new[:count], self.new[count:]
        return found

    async def claim(self, consumer: str, count: int, min_idle_ms: int) -> list[Entry]:
        self.claims.append(min_idle_ms)
        found, self.left = self.left[:count], self.left[count:]
        return found

    async def acknowledge(
        self, ids: Sequence[str], dead: Sequence[Mapping[str, str]] = ()
    ) -> int:
        self._redis()
        if self.hold_redis:
            await self.hold_redis.wait()
        self.acknowledged += ids
        self.parked += dead
        return len(self.new)

    async def depth(self) -> int:
        self.counted += 1
        return len(self.new)

    async def leave(self, consumer: str) -> None:
        self.gone.append(consumer)

    def prepare(self, events: Sequence[StreamedEvent]) -> Write:
        self.prepared.append([event.id for event in events])
        return partial(self._write, events)

    async def _write(self, events: Sequence[StreamedEvent]) -> int:
        self._store()
        self.writes.append(len(events))
        if self.hold:
            await self.hold.wait()
        if self.refused & {event.id for event in events}:
            raise Unstorable("it fits nowhere")
        self.stored += [event.id for event in events]
        return len(events)

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        self._store()
        self.letters += letters
        return len(letters)


def consumer(ends: Ends, size: int = 4) -> Consumer:
    rule = BatchRule(size=size, max_age_s=0.01)
    return Consumer(
        ends, ends, ConsumerOptions("me", rule, claim_s=30, backoff=AT_ONCE)
    )


async def holds(found: Sequence[object]) -> bool:
    return bool(found)


async def until_acknowledged(ends: Ends, count: int) -> None:
    async def done() -> bool:
        return len(ends.acknowledged) >= count

    await eventually(done, every_s=0.002)


async def test_events_are_stored_then_acknowledged() -> None:
    ends = Ends(*(entry(n) for n in range(10)))
    async with running(consumer(ends)):
        await until_acknowledged(ends, 10)
    assert sorted(ends.stored) == sorted(f"r{n}" for n in range(10))
    assert ends.acknowledged == [f"{n}-0" for n in range(10)]
    assert ends.gone == ["me"]


async def test_a_stream_that_is_read_idly_is_rarely_counted() -> None:
    ends = Ends()

    async def read_often() -> bool:
        return len(ends.waited) > 3

    async with running(consumer(ends)):
        await eventually(read_often, every_s=0.002)
    assert ends.counted == 1


async def test_entries_that_trickle_in_are_read_together() -> None:
    ends = Ends()
    made = Consumer(ends, ends, ConsumerOptions("me", BatchRule(4, 0.05), claim_s=30))
    async with running(made):
        for number in range(30):
            ends.new.append(entry(number))
            await asyncio.sleep(0.001)
        await until_acknowledged(ends, 30)
    reads = len(ends.waited)
    assert sorted(ends.stored) == sorted(f"r{n}" for n in range(30))
    assert reads < 30
    assert 0 in ends.waited  # a read that did not wait


async def test_what_a_dead_consumer_left_comes_first() -> None:
    ends = Ends(entry(5))
    ends.left = [entry(1)]
    async with running(consumer(ends)):
        await until_acknowledged(ends, 2)
    assert ends.stored == ["r1", "r5"]
    assert set(ends.claims) == {30_000}


async def test_nothing_is_claimed_while_that_could_be_what_it_stores() -> None:
    ends = Ends(entry(1))
    ends.hold = asyncio.Event()
    options = ConsumerOptions("me", BatchRule(4, 0.01), claim_s=0.04)
    async with running(Consumer(ends, ends, options)):
        await eventually(lambda: holds(ends.writes), every_s=0.002)
        await asyncio.sleep(0.03)  # the batch is older than half of that
        before = len(ends.claims)
        await asyncio.sleep(0.1)
        assert len(ends.claims) == before
        ends.hold.set()
        await until_acknowledged(ends, 1)

        async def claims() -> bool:
            return len(ends.claims) > before

        await eventually(claims, every_s=0.002)


async def test_poison_is_parked_and_acknowledged_with_the_rest() -> None:
    ends = Ends(entry(1), POISON, entry(2))
    async with running(consumer(ends)):
        await until_acknowledged(ends, 3)
    assert ends.stored == ["r1", "r2"]
    assert [letter.event_id for letter in ends.letters] == ["bad"]
    assert [letter["entry_id"] for letter in ends.parked] == ["9-0"]
    assert "gateway_id" not in ends.parked[0]  # what is None is no field


@pytest.mark.parametrize(
    "bad", [{"r0"}, {"r3"}, {"r1", "r2"}, {"r0", "r1", "r2", "r3"}]
)
async def test_what_the_database_refuses_is_found_by_halving(bad: set[str]) -> None:
    ends = Ends(*(entry(n) for n in range(4)))
    ends.refused = bad
    async with running(consumer(ends)):
        await until_acknowledged(ends, 4)
    assert set(ends.stored) == {f"r{n}" for n in range(4)} - bad
    assert {letter.event_id for letter in ends.letters} == bad
    assert {letter.reason for letter in ends.letters} == {"it fits nowhere"}
    assert len(ends.stored) == 4 - len(bad)


@pytest.mark.parametrize(("redis", "sql"), [(3, 0), (0, 3), (3, 3)])
async def test_while_an_end_is_away_it_is_tried_again(redis: int, sql: int) -> None:
    ends = Ends(entry(1), POISON)
    ends.redis_fails, ends.store_fails = redis, sql
    made = consumer(ends)
    async with running(made):
        await until_acknowledged(ends, 2)
    assert set(ends.stored) == {"r1"}
    assert ends.acknowledged == ["1-0", "9-0"]
    assert made.away == {}


async def test_what_is_away_is_named() -> None:
    ends = Ends(entry(1))
    ends.store_fails = 10**6
    made = consumer(ends)
    async with running(made):

        async def away() -> bool:
            return "store" in made.away

        await eventually(away)
        assert made.away == {"store": "no SQL"}
    # Given up at the stop: the entry stays pending and can be claimed.
    assert ends.acknowledged == []
    assert ends.gone == ["me"]


async def test_while_a_batch_is_stored_only_the_next_one_is_read() -> None:
    ends = Ends(*(entry(n) for n in range(40)))
    ends.hold = asyncio.Event()
    async with running(consumer(ends, size=1)):

        async def held() -> bool:
            return bool(ends.writes)

        await eventually(held)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(ends.writes) == 1
        assert ends.new  # and not all of the rest
        assert ends.acknowledged == []
        ends.hold.set()
        await until_acknowledged(ends, 40)


async def test_the_next_batch_is_prepared_while_one_is_stored() -> None:
    ends = Ends(*(entry(n) for n in range(12)))
    ends.hold = asyncio.Event()
    async with running(consumer(ends)):

        async def two() -> bool:
            return len(ends.prepared) == 2

        await eventually(two, every_s=0.002)
        assert ends.writes == [4]
        ends.hold.set()
        await until_acknowledged(ends, 12)
    assert [id_ for ids in ends.prepared for id_ in ids] == ends.stored


async def test_a_batch_is_stored_while_one_is_acknowledged() -> None:
    ends = Ends(*(entry(n) for n in range(40)))
    ends.hold_redis = asyncio.Event()
    async with running(consumer(ends)):

        async def two() -> bool:
            return len(ends.writes) == 2

        await eventually(two, every_s=0.002)
        await asyncio.sleep(0.05)
        assert len(ends.writes) == 2  # and no third one
        assert ends.acknowledged == []
        ends.hold_redis.set()
        await until_acknowledged(ends, 40)
    assert ends.acknowledged == [f"{n}-0" for n in range(40)]


async def test_what_was_read_is_stored_before_the_end() -> None:
    ends = Ends(*(entry(n) for n in range(3)))
    stop, made = asyncio.Event(), consumer(ends, size=100)
    task = asyncio.create_task(made.run(stop))

    async def read() -> bool:
        return not ends.new

    await eventually(read)
    stop.set()
    await asyncio.wait_for(task, 60)
    assert sorted(ends.acknowledged) == ["0-0", "1-0", "2-0"]


async def test_what_is_stored_and_what_is_not_is_counted() -> None:
    def count() -> dict[str, Any]:
        return {
            "events": metrics.EVENTS.labels("request")._value.get(),
            "dead": metrics.DEAD_LETTERS._value.get(),
            "failures": metrics.FAILURES.labels("store")._value.get(),
        }

    before = count()
    ends = Ends(entry(1), entry(2), POISON)
    ends.refused, ends.store_fails = {"r2"}, 2
    async with running(consumer(ends)):
        await until_acknowledged(ends, 3)
    gained = {name: value - before[name] for name, value in count().items()}
    assert gained == {"events": 1, "dead": 2, "failures": 2}
