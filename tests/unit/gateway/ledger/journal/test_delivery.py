"""Which events are safe and which are resent, by the replies to heartbeats."""

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from libs.common.contracts.events import GatewayEvent
from libs.common.errors import RedisAway
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.shared_connection import Refused, SharedConnection
from libs.common.routing.types import Beat, EntryId, StreamEnds
from services.gateway.ledger.journal.delivery import BATCH, DOUBTED_S, JournalDelivery
from services.gateway.ledger.journal.journal import Journal
from services.gateway.ledger.journal.segments import Kind
from tests.support.memory.clock import clock, settled, timeless

STREAM = "telemetry"
NOW_MS = 1_700_000_000_000


class Redis:
    """Accepts commands, until it is told to refuse."""

    def __init__(self) -> None:
        self.connections = 1
        self.taken: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.room = 1 << 30
        self.holds: asyncio.Event | None = None

    def call(self, *command: Any) -> "asyncio.Future[Any]":
        return asyncio.ensure_future(self._take(command))

    async def _take(self, command: tuple[Any, ...]) -> None:
        if self.holds is not None:
            await self.holds.wait()
        if self.error is not None and len(self.taken) >= self.room:
            raise self.error
        self.taken.append(command)

    @property
    def ids(self) -> list[str]:
        """Of events that were sent again by the function, or appended."""
        return [c[-2] if c[0] == "FCALL" else c[6] for c in self.taken]


class Books:
    """A journal with its delivery, and the stream as Redis would have it."""

    def __init__(self, root: Path) -> None:
        self.journal = Journal(root, "gw", NOW_MS, 1 << 24, 1 << 16)
        self.redis = Redis()
        self.delivery = JournalDelivery(
            self.journal, cast(SharedConnection, self.redis), STREAM
        )
        self.added = 0
        self.first: EntryId | None = None

    def end(self, count: int = 1) -> None:
        """Requests end, and their events reach the stream."""
        for _ in range(count):
            self.added += 1
            self.journal.ended(f"r{self.added}", b"{}")
            self.first = self.first or (self.added, 0)

    def stored(self, up_to: int) -> None:
        """Ingest has stored and deleted this many events."""
        self.first = None if up_to >= self.added else (up_to + 1, 0)

    def beat(self, *, born: str = "born", added: int | None = None) -> None:
        count = self.added if added is None else added
        ends = StreamEnds(self.first, (count, 0), count)
        sent = self.delivery.sent_so_far()
        self.delivery.beat_answered(sent, Beat("v", True, born, ends))


async def begun(root: Path) -> Books:
    """After the first heartbeat and its flush: no event is in doubt."""
    books = Books(root)
    books.beat()
    await books.delivery.flush()
    books.redis.taken.clear()
    return books


@timeless
async def test_what_is_stored_is_safe_once_a_beat_has_marked_it(tmp_path: Path) -> None:
    books = await begun(tmp_path)
    books.end(3)
    held = [books.delivery.held]
    books.beat()
    held.append(books.delivery.held)
    books.stored(2)
    books.beat()
    held.append(books.delivery.held)  # the mark is of all three
    books.stored(3)
    books.beat()
    held.append(books.delivery.held)
    assert held == [3, 3, 3, 0]
    assert books.journal.safe == books.journal.written


@timeless
async def test_what_was_written_since_the_mark_is_not_safe(tmp_path: Path) -> None:
    books = await begun(tmp_path)
    books.end(2)
    books.beat()
    books.end(1)
    books.stored(2)
    books.beat()
    assert books.delivery.held == 1


@timeless
async def test_while_something_is_unsent_no_beat_marks_anything(tmp_path: Path) -> None:
    books = await begun(tmp_path)
    books.end(1)
    books.journal.unsent(books.journal.ended("late", b"{}"))
    assert books.delivery.sent_so_far() is None
    books.beat()
    books.stored(9)
    books.beat()
    assert books.delivery.held == 2


@pytest.mark.parametrize("how", ["emptied", "stream deleted", "counter went back"])
@timeless
async def test_a_redis_that_forgot_gets_all_that_is_not_safe(
    tmp_path: Path, how: str
) -> None:
    books = await begun(tmp_path)
    books.end(2)
    books.beat()
    books.stored(2)
    books.beat()
    books.end(3)
    books.beat()
    if how == "emptied":
        books.beat(born="another")
    elif how == "stream deleted":
        books.first = None
        books.added = 0
        books.beat()
    else:
        books.beat(added=4)
    assert await books.delivery.flush() == 3
    assert books.redis.ids == ["r3", "r4", "r5"]


@timeless
async def test_a_new_connection_doubts_the_last_moments_only(tmp_path: Path) -> None:
    books = await begun(tmp_path)
    books.end(1)
    books.beat()
    clock().advance(DOUBTED_S + 1)
    books.end(1)
    books.beat()
    books.redis.connections += 1
    books.beat()
    assert await books.delivery.flush() == 1
    assert books.redis.ids == ["r2"]


@timeless
async def test_events_are_sent_again_as_they_were_sent(tmp_path: Path) -> None:
    books = await begun(tmp_path)
    books.journal.unsent(books.journal.ended("r1", b'{"id":"r1"}'))
    books.journal.unsent(books.journal.decided("d1", b"{}"))
    books.journal.accepted("r2", b"{")
    assert len(books.delivery) == 2
    assert await books.delivery.flush() == 2
    first = books.redis.taken[0]
    version = DEFAULT.catalogue_version()
    assert first[:5] == ("FCALL", "rpx_resend_v1", 2, version, STREAM)
    assert first[5:] == ("request", "r1", b'{"id":"r1"}')
    assert books.redis.ids == ["r1", "d1"]
    assert len(books.delivery) == 0
    assert await books.delivery.flush() == 0


@timeless
async def test_the_function_of_another_stack(tmp_path: Path) -> None:
    books, keys = await begun(tmp_path), Keys("b_2")
    redis = cast(SharedConnection, books.redis)
    books.journal.unsent(books.journal.ended("r1", b'{"id":"r1"}'))
    assert await JournalDelivery(books.journal, redis, "s", keys).flush() == 1
    expected = ("FCALL", "b_2_resend_v1", 2, keys.catalogue_version(), "s")
    assert books.redis.taken[0][:5] == expected


@pytest.mark.parametrize("error", [RedisAway("away"), Refused("OOM")])
@timeless
async def test_what_redis_does_not_take_stays(tmp_path: Path, error: Exception) -> None:
    books = await begun(tmp_path)
    for number in range(BATCH + 10):
        books.journal.unsent(books.journal.ended(f"r{number}", b"{}"))
    books.redis.error, books.redis.room = error, BATCH + 3
    assert await books.delivery.flush() == BATCH
    assert len(books.delivery) > 0
    books.redis.error = None
    await books.delivery.flush()
    assert set(books.redis.ids) == {f"r{number}" for number in range(BATCH + 10)}
    assert books.journal.unsent_from is None


@timeless
async def test_a_flush_that_is_broken_off_loses_nothing(tmp_path: Path) -> None:
    books = await begun(tmp_path)
    books.journal.unsent(books.journal.ended("r1", b"{}"))
    books.redis.holds = asyncio.Event()
    flushing = asyncio.create_task(books.delivery.flush())
    await settled()
    assert len(books.delivery) == 1
    assert books.delivery.sent_so_far() is None
    flushing.cancel()
    await settled()
    books.redis.holds = None
    assert await books.delivery.flush() == 1


@timeless
async def test_one_flush_at_a_time(tmp_path: Path) -> None:
    books = await begun(tmp_path)
    books.journal.unsent(books.journal.ended("r1", b"{}"))
    books.redis.holds = asyncio.Event()
    books.delivery.start_flush()
    books.delivery.start_flush()
    await settled()
    books.journal.unsent(books.journal.ended("r2", b"{}"))
    assert await books.delivery.flush() == 0
    books.redis.holds.set()
    await settled()
    assert books.redis.ids == ["r1"]
    books.delivery.start_flush()
    await settled()
    assert books.redis.ids == ["r1", "r2"]


# Reports -----------------------------------------------------------------------


@timeless
async def test_a_report_is_a_gateway_event(tmp_path: Path) -> None:
    books = await begun(tmp_path)
    books.journal.accepted("r0", b"{")
    books.end(2)
    told = msgspec.json.decode(books.delivery.report(NOW_MS), type=GatewayEvent)
    assert (told.accepted, told.ended, told.held) == (3, 2, 2)
    assert (told.gateway_id, told.started_at_ms, told.state) == (
        "gw",
        NOW_MS,
        "running",
    )


@pytest.mark.parametrize("error", [None, RedisAway()])
@timeless
async def test_a_published_report_may_get_lost(
    tmp_path: Path, error: Exception | None
) -> None:
    books = await begun(tmp_path)
    books.redis.error, books.redis.room = error, 0
    books.delivery.publish(NOW_MS)
    await settled()
    assert books.redis.ids == ([] if error else [f"gw:{NOW_MS}"])


@timeless
async def test_the_first_and_the_last_word_are_in_the_journal(tmp_path: Path) -> None:
    books = await begun(tmp_path)
    books.delivery.announce(NOW_MS)
    books.delivery.announce_end(NOW_MS)
    told = {
        record.id: json.loads(record.data)["state"]
        for record in books.journal.read(0, books.journal.written)
        if record.kind is Kind.GATEWAY
    }
    assert told == {"gw:opened": "running", "gw:closed": "closed"}
    assert await books.delivery.flush() == 2


@timeless
async def test_upkeep_notes_what_changed_and_makes_room(tmp_path: Path) -> None:
    books = await begun(tmp_path)

    def checks() -> int:
        read = books.journal.read(0, books.journal.written)
        return sum(record.kind is Kind.CHECK for record in read)

    await books.delivery.upkeep()
    before = checks()
    await books.delivery.upkeep()
    assert checks() == before
    books.end(1)
    await books.delivery.upkeep()
    assert checks() == before + 1
    assert not books.journal.wants_upkeep
