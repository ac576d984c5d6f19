"""Events are kept until they are in SQL, whatever happens to Redis."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from libs.common.contracts.catalogue import Catalogue
from libs.common.contracts.events import GatewayEvent
from libs.common.errors import NoCatalogue
from libs.common.redis.shared_connection import SharedConnection, connect
from libs.common.redis.telemetry_stream import Entry, TelemetryStream
from libs.common.routing.functions import RoutingFunctions
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.ledger.journal.journal import Journal
from services.router.function_library import LIBRARY
from tests.support.databases.valkey import empty
from tests.support.processes.stack import STREAM
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
GROUP = "ingest"
SMALL = 4096


class Desk:
    """A gateway's journal delivery; the test is ingest and router."""

    def __init__(self, url: str, root: Path) -> None:
        self.client = connect(url)
        self.shared = SharedConnection(connect(url))
        self.routing = RoutingFunctions(self.shared, STREAM, library=LIBRARY)
        self.journal = Journal(root, "gw", 1, 1 << 24, SMALL)
        self.delivery = JournalDelivery(self.journal, self.shared, STREAM)
        self.ingest = TelemetryStream(self.client, STREAM, GROUP)

    @property
    def redis(self) -> Redis:
        return self.client

    async def open(self) -> None:
        await self.shared.open()
        await self.publish()
        await self.beat()

    async def publish(self) -> None:
        await self.routing.load_library()
        await self.routing.publish(Catalogue(version="v", resources=()), "published")
        await self.redis.xtrim(STREAM, maxlen=0, approximate=False)

    async def close(self) -> None:
        self.journal.close()
        await self.shared.close()
        await self.client.aclose()

    async def beat(self) -> None:
        """As the gateway's heartbeat does it."""
        sent = self.delivery.sent_so_far()
        beat = await self.routing.heartbeat("gw", self.delivery.report(1))
        if beat.version is None:
            raise NoCatalogue
        self.delivery.beat_answered(sent, beat)
        await self.delivery.flush()
        await self.delivery.upkeep()

    async def end(self, *request_ids: str) -> None:
        """Requests end, and Redis accepts their events."""
        for id_ in request_ids:
            self.journal.ended(id_, b'{"id":"%b"}' % id_.encode())
            await self.ingest.append("request", id_, "{}")

    async def store(self, count: int) -> list[str]:
        """Store the next entries as ingest does; returns their events' ids."""
        entries: list[Entry] = []
        while len(entries) < count:
            entries += await self.ingest.read("c", count - len(entries), 1)
        await self.ingest.acknowledge([entry.id for entry in entries])
        return [entry.fields[b"id"].decode() for entry in entries]

    async def streamed(self) -> list[str]:
        found: Any = await self.redis.xrange(STREAM)
        return [fields[b"id"].decode() for _, fields in found]


@pytest_asyncio.fixture
async def desk(valkey: str, tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(valkey, tmp_path)
    await made.open()
    yield made
    await made.close()


async def test_what_is_stored_is_safe_and_not_before(desk: Desk) -> None:
    await desk.end("r1", "r2")
    await desk.beat()
    assert desk.delivery.held == 2
    assert await desk.store(1) == ["r1"]
    await desk.beat()
    # Of a beat's events all are safe, or none.
    assert desk.delivery.held == 2
    await desk.store(1)
    await desk.beat()
    assert (desk.delivery.held, desk.journal.clear) == (0, True)


async def test_what_came_after_the_beat_is_not_safe_with_it(desk: Desk) -> None:
    sent = desk.delivery.sent_so_far()
    await desk.end("r1")
    beat = await desk.routing.heartbeat("gw", desk.delivery.report(1))
    await desk.store(1)
    desk.delivery.beat_answered(sent, beat)
    assert desk.delivery.held == 1
    await desk.beat()
    await desk.beat()
    assert desk.delivery.held == 0


async def test_other_gateways_events_hold_nothing_up_for_long(desk: Desk) -> None:
    await desk.end("r1")
    await desk.ingest.append("request", "another", "{}")
    await desk.beat()
    await desk.ingest.append("request", "later", "{}")
    await desk.store(2)
    await desk.beat()
    assert desk.delivery.held == 0
    assert await desk.streamed() == ["later"]


async def test_entries_that_another_ingest_still_has_are_not_passed(
    desk: Desk,
) -> None:
    await desk.end("r1", "r2")
    await desk.beat()
    slow = await desk.ingest.read("slow", 1, 1) or await desk.ingest.read("slow", 1, 1)
    quick = await desk.ingest.read("quick", 1, 1)
    await desk.ingest.acknowledge([entry.id for entry in quick])
    await desk.beat()
    assert desk.delivery.held == 2
    await desk.ingest.acknowledge([entry.id for entry in slow])
    await desk.beat()
    assert desk.delivery.held == 0


async def test_an_emptied_redis_is_filled_again(desk: Desk, valkey: str) -> None:
    await desk.end("stored")
    await desk.beat()
    await desk.store(1)
    await desk.beat()
    desk.journal.decided("d1", b"{}")
    await desk.end("r1", "r2")
    await desk.beat()
    empty(valkey)
    with pytest.raises(NoCatalogue):
        await desk.beat()
    await desk.publish()
    await desk.end("r3")
    await desk.beat()
    assert await desk.streamed() == ["r3", "d1", "r1", "r2", "r3"]
    # The connection never broke, but the old marks belong to another stream.
    await desk.store(3)
    await desk.beat()
    assert desk.delivery.held == 3
    await desk.store(2)
    await desk.beat()
    assert desk.delivery.held == 0


async def test_an_answer_that_was_lost_hides_no_emptied_redis(
    desk: Desk, valkey: str
) -> None:
    await desk.end("r1")
    await desk.beat()
    empty(valkey)
    await desk.publish()
    await desk.routing.heartbeat("gw", desk.delivery.report(1))  # nobody hears it
    await desk.beat()
    assert await desk.streamed() == ["r1"]
    assert desk.delivery.held == 1


async def test_a_deleted_stream_is_filled_again(desk: Desk) -> None:
    await desk.end("r1", "r2")
    await desk.beat()
    await desk.redis.delete(STREAM)
    await desk.beat()
    assert await desk.streamed() == ["r1", "r2"]
    assert desk.delivery.held == 2


async def test_a_lost_connection_brings_the_last_moments_again(desk: Desk) -> None:
    """A replica that takes over may lack the latest events."""
    await desk.end("r1")
    await desk.beat()
    before = desk.shared.connections
    await desk.redis.execute_command(
        "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"
    )  # type: ignore[no-untyped-call]

    async def again() -> bool:
        return desk.shared.up and desk.shared.connections > before

    await eventually(again)
    await desk.beat()
    assert await desk.streamed() == ["r1", "r1"]


async def test_what_redis_did_not_take_is_sent(desk: Desk) -> None:
    desk.journal.unsent(desk.journal.ended("r1", b"{}"))
    await desk.end("r2")
    assert len(desk.delivery) == 1
    await desk.beat()
    assert await desk.streamed() == ["r2", "r1", "r2"]
    assert len(desk.delivery) == 0


async def test_a_broken_flush_keeps_what_was_not_confirmed(desk: Desk) -> None:
    for number in range(1200):
        desk.journal.unsent(desk.journal.decided(f"d{number}", b"{}"))
    await desk.shared.close()
    assert await desk.delivery.flush() == 0
    assert len(desk.delivery) == 1200
    await desk.shared.open()
    assert await desk.delivery.flush() == 1200
    assert await desk.streamed() == [f"d{n}" for n in range(1200)]
    assert len(desk.delivery) == 0


async def test_many_go_back_while_beats_go_on(desk: Desk) -> None:
    for number in range(3000):
        desk.journal.unsent(desk.journal.decided(f"d{number}", b"{}"))
    desk.delivery.start_flush()
    desk.delivery.start_flush()
    await asyncio.sleep(0)  # it begins
    assert await desk.delivery.flush() == 0  # one at a time
    sent = desk.delivery.sent_so_far()
    beat = await desk.routing.heartbeat("gw", desk.delivery.report(1))
    desk.delivery.beat_answered(sent, beat)

    async def all_there() -> bool:
        return int(await desk.redis.xlen(STREAM)) == 3000 and not len(desk.delivery)

    await eventually(all_there)


async def test_room_is_given_back_when_it_is_safe(desk: Desk) -> None:
    for number in range(100):
        desk.journal.accepted(f"r{number}", b"{" + b"x" * 100)
        desk.journal.ended(f"r{number}", b"{" + b"x" * 100)
    assert desk.journal.size_bytes > 3 * SMALL
    await desk.beat()
    await desk.beat()
    assert desk.journal.size_bytes == SMALL


async def test_the_books_are_reported(desk: Desk) -> None:
    desk.journal.accepted("open", b"{")
    await desk.end("r1")
    await desk.beat()
    reported = (await desk.routing.reports())["gw"]
    assert reported.age_ms < 5_000
    books = reported.books
    assert (books.accepted, books.ended, books.held) == (2, 1, 1)
    desk.delivery.publish(5)
    desk.delivery.announce_end(6)
    await desk.delivery.flush()
    found: Any = await desk.redis.xrange(STREAM)
    told = [f for _, f in found if f[b"kind"] == b"gateway"]
    assert [f[b"id"] for f in told] == [b"gw:5", b"gw:closed"]
    assert msgspec.json.decode(told[1][b"data"], type=GatewayEvent).state == "closed"


async def test_a_silent_gateways_last_word_goes_to_sql(desk: Desk) -> None:
    await desk.end("r1")
    await desk.store(1)
    await desk.beat()
    assert await desk.routing.reap(0) == 0
    found: Any = await desk.redis.xrange(STREAM)
    (fields,) = [f for _, f in found]
    assert fields[b"kind"] == b"gateway"
    assert json.loads(fields[b"data"])["ended"] == 1
    assert await desk.routing.reports() == {}
