"""The shared connection against a scripted server. With a real Redis, and one that is
killed, stopped or fails over, it is in tests/integration/redis/test_redis_client.py."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from libs.common.errors import RedisAway
from libs.common.redis import shared_connection
from libs.common.redis.shared_connection import Refused, SharedConnection, connect
from libs.common.redis.wire import ALONE
from tests.support.databases.resp import (
    HANG_UP,
    SILENCE,
    Command,
    Raw,
    Scripted,
    scripted,
)
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
READONLY = Exception("READONLY You can't write against a read only replica.")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_connection, "RECONNECT_PAUSE_S", 0.01)


@asynccontextmanager
async def shared(
    answer: Callable[[Command], Any],
) -> AsyncIterator[tuple[SharedConnection, Scripted]]:
    async with scripted(answer) as server:
        made = SharedConnection(connect(server.url))
        await made.open()
        try:
            yield made, server
        finally:
            await made.close()


def echo(command: Command) -> Any:
    return command[1]


async def until_up(connection: SharedConnection) -> None:
    async def up() -> bool:
        return connection.up

    await eventually(up)


async def test_calls_of_one_turn_are_answered_each_with_its_own_reply() -> None:
    async with shared(echo) as (connection, server):
        assert connection.up
        calls = [connection.call("ECHO", str(n)) for n in range(100)]
        busy = [connection.busy]
        assert await asyncio.gather(*calls) == [b"%d" % n for n in range(100)]
        assert [*busy, connection.busy] == [True, False]
    assert (server.connections, connection.connections) == (1, 1)


async def test_an_error_reply_fails_its_own_call_only() -> None:
    answers = {b"a": b"a", b"b": Exception("ERR no"), b"c": b"c"}
    async with shared(lambda c: answers[c[1]]) as (connection, _):
        one, wrong, other = (connection.call("ECHO", n) for n in "abc")
        assert (await one, await other) == (b"a", b"c")
        with pytest.raises(Refused, match="no"):
            await wrong


def shouted(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise KeyError(str(reply))
    return reply.upper()


async def test_a_reply_can_be_read_before_it_is_awaited() -> None:
    answers = {b"a": b"a", b"b": Exception("ERR no"), b"c": [b"no text"]}
    async with shared(lambda c: answers[c[1]]) as (connection, _):
        given_up = connection.ask(shouted, ("ECHO", "a"))
        given_up.cancel()
        right = connection.ask(shouted, ("ECHO", "a"))
        wrong = connection.ask(shouted, ("ECHO", "b"))
        odd = connection.ask(shouted, ("ECHO", "c"))
        last = connection.call("ECHO", "a")
        assert (await right, await last) == (b"A", b"a")
        with pytest.raises(KeyError, match="no"):
            await wrong
        with pytest.raises(AttributeError):
            await odd
        unsent = connection.ask(shouted, ("ECHO", object()))
        with pytest.raises(KeyError, match="cannot be sent"):
            await unsent


async def test_a_reply_that_does_not_come_cannot_be_read() -> None:
    async with shared(lambda _: HANG_UP) as (connection, _):
        with pytest.raises(RedisAway):
            await connection.ask(shouted, ("ECHO", "a"))
        with pytest.raises(RedisAway):
            await connection.ask(shouted, ("ECHO", "a"))


async def test_a_replica_is_left_when_a_read_reply_says_so() -> None:
    async with shared(lambda _: READONLY) as (connection, server):
        with pytest.raises(KeyError, match="READONLY"):
            await connection.ask(shouted, ("SET", "k", "v"))
        await until_up(connection)
        assert server.connections > 1


@pytest.mark.parametrize("odd", [object(), None, "\ud83d"])
async def test_what_cannot_be_sent_is_refused_before_it_is_counted(odd: Any) -> None:
    async with shared(echo) as (connection, server):
        wrong, right = connection.call("ECHO", odd), connection.call("ECHO", "a")
        failed: list[None] = []
        connection.tell(lambda: failed.append(None), ("ECHO", odd))
        with pytest.raises(Refused, match="cannot be sent"):
            await wrong
        assert (await right, failed) == (b"a", [None])
    assert len(server.commands) == 1


async def test_a_call_that_nobody_waits_for_keeps_the_order() -> None:
    async with shared(echo) as (connection, _):
        connection.call("ECHO", "a").cancel()
        failed: list[None] = []
        connection.tell(lambda: failed.append(None), ("ECHO", "b"))
        assert await connection.call("ECHO", "c") == b"c"
        assert failed == []


async def test_who_told_something_hears_of_a_refusal() -> None:
    failed: list[str] = []

    def raises() -> None:
        failed.append("first")
        raise ValueError("kept from the others")

    answers = {b"a": Exception("ERR full"), b"b": b"b"}
    async with shared(lambda c: answers[c[1]]) as (connection, _):
        connection.tell(raises, ("ECHO", "a"))
        assert await connection.call("ECHO", "b") == b"b"
    assert failed == ["first"]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(HANG_UP, id="hangs up"),
        pytest.param(Raw(b"HTTP/1.1 400 Bad Request\r\n"), id="is no Redis"),
        pytest.param(Raw(b"$1\r\na\r\n" * 3), id="answers more than was asked"),
    ],
)
async def test_who_waits_is_told_when_the_connection_is_lost(reply: Any) -> None:
    replies = [reply, b"back"]
    async with shared(lambda _: replies.pop(0)) as (connection, server):
        failed: list[None] = []
        call = connection.call("GET", "a")
        if reply is HANG_UP:
            connection.tell(lambda: failed.append(None), ("GET", "b"))
            with pytest.raises(RedisAway):
                await call
            assert failed == [None]
        else:
            await asyncio.wait([call])

        async def again() -> bool:
            return connection.connections == 2

        await eventually(again)
        assert await connection.call("GET", "c") == b"back"
    assert server.connections == 2


async def test_a_primary_that_was_demoted_is_left() -> None:
    replies = [READONLY, b"x"]
    async with shared(lambda _: replies.pop(0) if replies else b"new") as (
        connection,
        _,
    ):
        refused, waiting = connection.call("SET", "a", 1), connection.call("GET", "a")
        with pytest.raises(Refused, match="READONLY"):
            await refused
        with pytest.raises(RedisAway, match="replica"):
            await waiting
        await until_up(connection)
        assert connection.connections == 2


async def test_a_redis_that_does_not_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_connection, "ANSWER_TIMEOUT_S", 0.05)
    replies = [SILENCE]
    async with shared(lambda _: replies.pop(0) if replies else b"back") as (
        connection,
        _,
    ):
        with pytest.raises(RedisAway, match="does not answer"):
            await asyncio.wait_for(connection.call("GET", "a"), 60)
        await until_up(connection)
        assert await connection.call("GET", "a") == b"back"


async def test_while_redis_is_away_every_call_fails_at_once() -> None:
    async with scripted(echo) as server:
        url = server.url
    connection = SharedConnection(connect(url))
    await connection.open()
    assert not connection.up
    assert not connection.busy
    with pytest.raises(RedisAway, match="not connected"):
        await connection.call("GET", "a")
    failed: list[None] = []
    connection.tell(lambda: failed.append(None), ("GET", "a"))
    assert failed == [None]
    await connection.close()


async def test_closing_fails_what_waits() -> None:
    async with scripted(lambda _: SILENCE) as server:
        connection = SharedConnection(connect(server.url))
        await connection.open()
        call = connection.call("GET", "a")
        await connection.close()
        with pytest.raises(RedisAway, match="closed"):
            await call


async def test_it_closes_although_an_attempt_loses_the_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one of redis-py may with Python 3.11: the gateway did not end."""
    begun, lost = asyncio.Event(), asyncio.Event()

    async def attempt() -> None:
        if not lost.is_set():
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.set()
        raise OSError

    async with scripted(echo) as server:
        client = connect(server.url)
        connection = SharedConnection(client)
        await connection.open()
        made = client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        monkeypatch.setattr(made, "connect", attempt)
        monkeypatch.setattr(client.connection_pool, "make_connection", lambda: made)
    await begun.wait()  # the server is gone
    await asyncio.wait_for(connection.close(), 60)
    assert lost.is_set()


async def test_it_tells_whether_calls_are_not_written_yet() -> None:
    async with shared(echo) as (connection, _):
        first = connection.call("ECHO", "one")
        sent: list[str] = []
        # A single call is written at once.
        assert not connection.when_sent(lambda: sent.append("one"))
        second = connection.call("ECHO", "two")
        assert connection.when_sent(lambda: sent.append("two"))
        assert sent == []
        await asyncio.sleep(0)
        assert sent == ["two"]
        assert not connection.when_sent(lambda: sent.append("three"))
        await asyncio.gather(first, second)


async def test_reports_wait_for_the_next_call_and_not_for_the_end() -> None:
    async with shared(lambda _: ALONE) as (connection, server):
        connection.tell(lambda: None, ("ECHO", "one"))
        assert await connection.call("ECHO", "two") == ALONE
        connection.tell(lambda: None, ("ECHO", "last"))
        assert connection.busy
        await connection.close()

        async def arrived() -> bool:
            return server.commands[-1] == [b"ECHO", b"last"]

        await eventually(arrived)
