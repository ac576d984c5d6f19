"""Orders through Redis, which is scripted; both ends meet through a real one in
tests/integration/health/test_health.py."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from libs.common.errors import RedisAway
from libs.common.redis.check_queue import KEPT_S, Orders
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.shared_connection import connect
from tests.support.databases.resp import HANG_UP, Command, scripted

pytestmark = pytest.mark.asyncio
LIST = DEFAULT.check_orders().encode()
ANSWER = DEFAULT.check_answer("id-1").encode()


@asynccontextmanager
async def orders(reply: Any) -> AsyncIterator[tuple[Orders, list[Command]]]:
    async with scripted(lambda _: reply) as server:
        client = connect(server.url)
        yield Orders(client), server.commands
        await client.aclose()


async def test_an_order_that_nobody_takes_goes_by_itself() -> None:
    async with orders(1) as (desk, commands):
        await desk.place("id-1 {}")
    assert commands == [
        [b"LPUSH", LIST, b"id-1 {}"],
        [b"EXPIRE", LIST, b"%d" % KEPT_S],
    ]


async def test_each_stack_has_its_orders() -> None:
    other = Keys("b_2")
    async with scripted(lambda _: 1) as server:
        client = connect(server.url)
        desk = Orders(client, other)
        await desk.place("id-1")
        await desk.answer("id-1", "[]")
        await client.aclose()
    named = {command[1].decode() for command in server.commands}
    assert named == {other.check_orders(), other.check_answer("id-1")}


async def test_its_answer_is_kept_under_its_id_alone() -> None:
    async with orders(1) as (desk, commands):
        await desk.answer("id-1 {}", "[]")
    assert commands == [
        [b"LPUSH", ANSWER, b"[]"],
        [b"EXPIRE", ANSWER, b"%d" % KEPT_S],
    ]


@pytest.mark.parametrize(("reply", "found"), [([b"k", b"[]"], b"[]"), (None, None)])
async def test_an_answer_is_waited_for(reply: Any, found: bytes | None) -> None:
    async with orders(reply) as (desk, commands):
        assert await desk.fetch("id-1 {}") == found
    assert commands[0][:2] == [b"BLPOP", ANSWER]


@pytest.mark.parametrize(
    ("reply", "order"), [([b"k", b"id-1 {}"], "id-1 {}"), (None, None)]
)
async def test_the_oldest_order_is_taken(reply: Any, order: str | None) -> None:
    async with orders(reply) as (desk, commands):
        assert await desk.take() == order
    assert commands[0][:2] == [b"BRPOP", LIST]


@pytest.mark.parametrize(("reply", "withdrawn"), [(1, True), (0, False)])
async def test_an_order_is_withdrawn_unless_it_was_taken(
    reply: int, withdrawn: bool
) -> None:
    async with orders(reply) as (desk, commands):
        assert await desk.withdraw("id-1") is withdrawn
    assert commands == [[b"LREM", LIST, b"0", b"id-1"]]


async def test_a_redis_that_is_away() -> None:
    async with orders(HANG_UP) as (desk, _):
        for call in (desk.place, desk.fetch, desk.withdraw):
            with pytest.raises(RedisAway):
                await call("id-1")
        with pytest.raises(RedisAway):
            await desk.take()
        with pytest.raises(RedisAway):
            await desk.answer("id-1", "[]")
