"""The telemetry stream, with a scripted Redis. With a real one it is in
tests/integration/ledger/test_streams.py and test_ingest.py."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import ResponseError

from libs.common.errors import RedisAway
from libs.common.redis.shared_connection import SharedConnection, connect
from libs.common.redis.telemetry_stream import (
    ACKNOWLEDGED_AT_ONCE,
    Entry,
    TelemetryStream,
)
from tests.support.databases.resp import HANG_UP, Command, scripted

pytestmark = pytest.mark.asyncio
FIELDS = [b"kind", b"request", b"data", b"{}"]
ENTRY = Entry("5-0", {b"kind": b"request", b"data": b"{}"})
NO_GROUP = Exception("NOGROUP No such key 's' or consumer group 'g'")
DELETED = Exception("UNBLOCKED the stream key no longer exists")


@asynccontextmanager
async def stream(
    answer: Callable[[Command], Any],
) -> AsyncIterator[tuple[TelemetryStream, list[Command]]]:
    async with scripted(answer) as server:
        client = connect(server.url)
        yield TelemetryStream(client, "s", "g"), server.commands
        await client.aclose()


def replies(*given: Any) -> Callable[[Command], Any]:
    left = list(given)
    return lambda _: left.pop(0)


async def test_an_event_is_added_with_its_four_fields() -> None:
    async with stream(lambda _: b"5-0") as (made, commands):
        await made.append("request", "r1", "{}")
    assert commands == [
        [b"XADD", b"s", b"*", b"kind", b"request", b"id", b"r1", b"v", b"1",
         b"data", b"{}"],
    ]  # fmt: skip


async def test_new_entries_are_read() -> None:
    async with stream(lambda _: [[b"s", [[b"5-0", FIELDS]]]]) as (made, commands):
        assert await made.read("me", 10, 0) == [ENTRY]
        assert await made.read("me", 10, 7) == [ENTRY]
    at_once, waiting = commands
    assert at_once[:4] == [b"XREADGROUP", b"GROUP", b"g", b"me"]
    # To Redis, a wait of zero is one without end.
    assert b"BLOCK" not in at_once
    assert waiting[waiting.index(b"BLOCK") + 1] == b"7"


async def test_no_entry_came() -> None:
    async with stream(lambda _: None) as (made, _):
        assert await made.read("me", 10, 5) == []


async def test_a_connection_of_its_own_is_for_reads_alone() -> None:
    answers = replies([[b"s", [[b"5-0", FIELDS]]]], NO_GROUP)
    async with scripted(answers) as own, stream(lambda _: "OK") as (shared, commands):
        reads = SharedConnection(connect(own.url))
        await reads.open()
        made = TelemetryStream(shared._redis, "s", "g", reads)
        assert await made.read("me", 10, 7) == [ENTRY]
        assert await made.read("me", 10, 0) == []
        await reads.close()
    assert [command[0] for command in own.commands] == [b"XREADGROUP"] * 2
    assert [command[:2] for command in commands] == [[b"XGROUP", b"CREATE"]]


async def test_a_connection_that_is_down_is_a_redis_that_cannot_be_used() -> None:
    async with stream(lambda _: "OK") as (shared, _):
        reads = SharedConnection(connect("redis://127.0.0.1:1/0"))
        made = TelemetryStream(shared._redis, "s", "g", reads)
        with pytest.raises(RedisAway):
            await made.read("me", 10, 7)


@pytest.mark.parametrize("lost", [NO_GROUP, DELETED])
async def test_a_group_that_is_lost_is_made_again_from_the_start(
    lost: Exception,
) -> None:
    async with stream(replies(lost, "OK", lost, "OK")) as (made, commands):
        assert await made.read("me", 10, 5) == []
        assert await made.claim("me", 10, 5) == []
    create = [b"XGROUP", b"CREATE", b"s", b"g", b"0", b"MKSTREAM"]
    assert commands[1::2] == [create, create]


async def test_another_consumer_was_faster_with_the_group() -> None:
    busy = Exception("BUSYGROUP Consumer Group name already exists")
    async with stream(replies(NO_GROUP, busy)) as (made, _):
        assert await made.read("me", 10, 5) == []


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([Exception("WRONGTYPE no")] * 3, id="no stream"),
        pytest.param([NO_GROUP, Exception("OOM no")] * 3, id="full"),
        pytest.param([HANG_UP] * 3, id="gone"),
    ],
)
async def test_what_is_no_lost_group_is_a_redis_that_cannot_be_used(
    answers: list[Any],
) -> None:
    async with stream(replies(*answers)) as (made, _):
        with pytest.raises(RedisAway):
            await made.read("me", 10, 5)
    async with stream(replies(*answers)) as (made, _):
        with pytest.raises(RedisAway):
            await made.claim("me", 10, 5)


async def test_entries_that_somebody_left_are_claimed_wherever_they_are() -> None:
    # One call looks at a bounded number of entries; deleted ones have no fields.
    looked = [b"7-0", [], []], [b"9-0", [[b"5-0", FIELDS], [b"6-0", None]], []]
    async with stream(replies(*looked)) as (made, commands):
        assert await made.claim("me", 10, 30_000) == [ENTRY]
    assert [command[5] for command in commands] == [b"0-0", b"7-0"]


async def test_nothing_to_claim() -> None:
    async with stream(lambda _: [b"0-0", [], []]) as (made, commands):
        assert await made.claim("me", 10, 30_000) == []
    assert len(commands) == 1


async def test_what_is_stored_is_deleted_and_poison_parked_all_at_once() -> None:
    answers = {b"MULTI": "OK", b"EXEC": [b"1-0", 1, 1, 4]}
    async with stream(lambda c: answers.get(c[0], "QUEUED")) as (made, commands):
        assert await made.acknowledge(["5-0", "6-0"], [{"reason": "odd"}]) == 4
    assert [command[0] for command in commands] == [
        b"MULTI", b"XADD", b"XACK", b"XDEL", b"XLEN", b"EXEC",
    ]  # fmt: skip
    assert commands[1][1] == b"s:dead"
    assert commands[2] == [b"XACK", b"s", b"g", b"5-0", b"6-0"]


async def test_many_entries_are_deleted_in_parts() -> None:
    done = iter([[b"1-0", 1, 1, 4], [1, 1, 4]])
    ids = [f"{number}-0" for number in range(ACKNOWLEDGED_AT_ONCE + 1)]

    def answer(command: Command) -> Any:
        if command[0] == b"EXEC":
            return next(done)
        return "OK" if command[0] == b"MULTI" else "QUEUED"

    async with stream(answer) as (made, commands):
        assert await made.acknowledge(ids, [{"reason": "odd"}]) == 4
    parts = [command[3:] for command in commands if command[0] == b"XACK"]
    assert [id_.decode() for part in parts for id_ in part] == ids
    assert max(map(len, parts)) == ACKNOWLEDGED_AT_ONCE
    assert [command[0] for command in commands].count(b"XADD") == 1


async def test_acknowledging_nothing_tells_what_is_left() -> None:
    answers = {b"MULTI": "OK", b"EXEC": [4]}
    async with stream(lambda c: answers.get(c[0], "QUEUED")) as (made, commands):
        assert await made.acknowledge([]) == 4
    assert [command[0] for command in commands] == [b"MULTI", b"XLEN", b"EXEC"]


async def test_the_depth() -> None:
    async with stream(lambda _: 9) as (made, _):
        assert await made.depth() == 9


@pytest.mark.parametrize(
    ("entries", "oldest"), [([], None), ([[b"1700-3", FIELDS]], 1700)]
)
async def test_the_oldest_entry(entries: list[Any], oldest: int | None) -> None:
    async with stream(lambda _: entries) as (made, _):
        assert await made.oldest_ms() == oldest


@pytest.mark.parametrize(
    ("pending", "leaves"), [([], True), ([[b"5-0", b"me", 1, 1]], False)]
)
async def test_a_consumer_with_pending_entries_is_not_forgotten(
    pending: list[Any], leaves: bool
) -> None:
    async with stream(replies(pending, 0)) as (made, commands):
        await made.leave("me")
    assert (len(commands) == 2) is leaves
    if leaves:
        assert commands[1] == [b"XGROUP", b"DELCONSUMER", b"s", b"g", b"me"]


async def test_leaving_a_group_that_is_lost_is_nothing() -> None:
    async with stream(lambda _: NO_GROUP) as (made, _):
        await made.leave("me")
    async with stream(lambda _: Exception("WRONGTYPE no")) as (made, _):
        with pytest.raises((RedisAway, ResponseError)):
            await made.leave("me")
