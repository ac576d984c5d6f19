"""Stream operations that the consumer's tests do not cover."""

import pytest
from redis.asyncio import Redis

from libs.common.errors import RedisAway
from libs.common.redis import keys
from libs.common.redis.telemetry_stream import Entry, TelemetryStream

pytestmark = pytest.mark.asyncio

STREAM = "telemetry:events"


@pytest.fixture
def stream(redis: Redis) -> TelemetryStream:
    return TelemetryStream(redis, STREAM, "workers")


async def read(stream: TelemetryStream, count: int = 10) -> list[Entry]:
    """Read new entries; the first read creates the group."""
    return await stream.read("one", count, 1) or await stream.read("one", count, 1)


async def test_an_entry_travels_unchanged(stream: TelemetryStream) -> None:
    await stream.append("health", "h1", b'{"a":1}')
    (entry,) = await read(stream)
    assert entry.fields == {
        b"kind": b"health",
        b"id": b"h1",
        b"v": b"1",
        b"data": b'{"a":1}',
    }


async def test_what_was_there_before_the_group_is_read(stream: TelemetryStream) -> None:
    for n in range(3):
        await stream.append("health", f"h{n}", "{}")
    assert [e.fields[b"id"] for e in await read(stream)] == [b"h0", b"h1", b"h2"]


async def test_the_oldest_entry_is_one_that_is_not_stored(
    stream: TelemetryStream, redis: Redis
) -> None:
    assert await stream.oldest_ms() is None
    for ms in (1_000, 2_000):
        await redis.xadd(STREAM, {"kind": "health"}, id=f"{ms}-5")
    assert await stream.oldest_ms() == 1_000
    (first, _) = await read(stream)
    assert await stream.oldest_ms() == 1_000  # read, and not stored
    await stream.acknowledge([first.id])
    assert await stream.oldest_ms() == 2_000


async def test_acknowledging_deletes(stream: TelemetryStream, redis: Redis) -> None:
    for n in range(3):
        await stream.append("health", f"h{n}", "{}")
    ids = [entry.id for entry in await read(stream)]
    assert await stream.acknowledge(ids[:2]) == 1
    assert await stream.acknowledge(ids[:2]) == 1
    assert await stream.acknowledge([]) == 1
    assert await stream.depth() == 1
    assert (await redis.xpending(STREAM, "workers"))["pending"] == 1


async def test_dead_letters_have_a_stream_of_their_own(
    stream: TelemetryStream, redis: Redis
) -> None:
    await stream.acknowledge([], [{"id": "x", "reason": "why"}])
    assert await redis.xlen(keys.dead_letters(STREAM)) == 1
    assert await stream.depth() == 0


async def test_everything_a_crowd_left_can_be_claimed(stream: TelemetryStream) -> None:
    for n in range(300):
        await stream.append("health", f"h{n}", "{}")
    assert len(await read(stream, 300)) == 300
    claimed = 0
    while entries := await stream.claim("two", 50, 0):
        claimed += await stream.depth() - await stream.acknowledge(
            [entry.id for entry in entries]
        )
    assert claimed == 300


async def test_claiming_makes_the_group(stream: TelemetryStream) -> None:
    assert await stream.claim("one", 10, 0) == []
    assert await stream.claim("one", 10, 0) == []


async def test_leaving_without_a_group(stream: TelemetryStream) -> None:
    await stream.leave("one")


async def test_a_key_that_is_no_stream(stream: TelemetryStream, redis: Redis) -> None:
    await redis.set(STREAM, "text")
    for call in (stream.depth(), stream.read("one", 1, 1), stream.leave("one")):
        with pytest.raises(RedisAway):
            await call
