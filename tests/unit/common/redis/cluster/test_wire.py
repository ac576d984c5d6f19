"""Calls, and who waits for them. With a node: test_connection.py."""

import asyncio

import pytest
from redis.exceptions import ResponseError

from libs.common.errors import RedisAway
from libs.common.redis.cluster.wire import Awaited, Call, Told

pytestmark = pytest.mark.asyncio


async def test_a_future_gets_the_reply_or_what_is_read_of_it() -> None:
    loop = asyncio.get_running_loop()
    plain, read = loop.create_future(), loop.create_future()
    Awaited(b"", plain).answer(b"1")
    Awaited(b"", read, int).answer(b"1")
    assert (await plain, await read) == (b"1", 1)


async def test_a_future_raises_the_error_reply_or_what_reading_raises() -> None:
    loop = asyncio.get_running_loop()
    plain, read = loop.create_future(), loop.create_future()
    Awaited(b"", plain).answer(ResponseError("no"))
    Awaited(b"", read, int).answer(b"x")
    with pytest.raises(ResponseError):
        await plain
    with pytest.raises(ValueError, match="x"):
        await read


async def test_a_caller_that_is_gone_gets_nothing() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    call = Awaited(b"", future)
    call.answer(b"1")
    call.fail(RedisAway())
    assert future.cancelled()


async def test_a_failure_is_told_but_no_reply() -> None:
    told: list[int] = []
    Told(b"", lambda: told.append(1)).answer(b"1")
    assert told == []
    Told(b"", lambda: told.append(2)).answer(ResponseError("no"))
    Told(b"", lambda: told.append(3)).fail(RedisAway())
    assert told == [2, 3]


async def test_who_raises_on_hearing_of_a_failure_affects_nobody() -> None:
    def raises() -> None:
        raise ValueError

    Told(b"", raises).fail(RedisAway())


async def test_nobody_waits_for_a_plain_call() -> None:
    call = Call(b"PING")
    call.answer(b"PONG")
    call.fail(RedisAway())
    assert call.packed == b"PING"
