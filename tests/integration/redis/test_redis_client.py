"""The shared connection: order, batching, and an unreachable Redis."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.exceptions import ReadOnlyError

from libs.common.contracts.payloads import Payload
from libs.common.errors import RedisAway
from libs.common.redis.capture_stream import PayloadStream
from libs.common.redis.shared_connection import Refused, SharedConnection, connect
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def shared(valkey: str) -> AsyncIterator[SharedConnection]:
    connection = SharedConnection(connect(valkey))
    await connection.open()
    yield connection
    await connection.close()


async def test_calls_are_answered_in_order(shared: SharedConnection) -> None:
    replies = await asyncio.gather(*(shared.call("INCR", "n") for _ in range(500)))
    assert replies == list(range(1, 501))
    assert not shared.busy


async def test_an_error_reply_fails_its_own_call_only(shared: SharedConnection) -> None:
    before, wrong, after = (
        shared.call("SET", "k", "v"),
        shared.call("INCR", "k"),
        shared.call("GET", "k"),
    )
    assert await before
    with pytest.raises(Refused):
        await wrong
    assert await after == b"v"


@pytest.mark.parametrize("odd", ["half an emoji \ud83d", None, object()])
async def test_what_cannot_be_sent_shifts_nobody_elses_reply(
    shared: SharedConnection, odd: object
) -> None:
    wrong, right = shared.call("SET", "k", odd), shared.call("ECHO", "a")
    with pytest.raises(Refused):
        await wrong
    assert await right == b"a"
    assert await shared.call("ECHO", "b") == b"b"


async def test_a_call_nobody_waits_for_is_made_all_the_same(
    shared: SharedConnection,
) -> None:
    shared.call("SET", "k", "v").cancel()
    assert await shared.call("GET", "k") == b"v"


async def test_it_fails_at_once_while_redis_is_away_and_comes_back(
    tmp_path: Path,
) -> None:
    port = free_port()
    with running_valkey(tmp_path, port) as url:
        shared = SharedConnection(connect(url))
        await shared.open()
        assert await shared.call("PING")

    async def gone() -> bool:
        return not shared.up

    await eventually(gone)
    with pytest.raises(RedisAway):
        await shared.call("PING")
    with running_valkey(tmp_path, port):

        async def back() -> bool:
            return shared.up

        await eventually(back)
        assert await shared.call("PING")
        assert shared.connections == 2
        await shared.close()


async def test_who_raises_on_hearing_of_a_loss_keeps_nobody_from_hearing(
    tmp_path: Path,
) -> None:
    heard: list[str] = []

    def raises() -> None:
        heard.append("first")
        raise ValueError

    port = free_port()
    with running_valkey(tmp_path, port) as url:
        shared = SharedConnection(connect(url))
        await shared.open()
        # An error reply does not affect later replies on the same connection.
        assert await shared.call("SET", "k", "v")
        shared.tell(raises, ("INCR", "k"))
        assert await shared.call("ECHO", "a") == b"a"
        assert shared.connections == 1
        blocked = shared.call("BLPOP", "nothing", "0")
        shared.tell(raises, ("PING",))
        shared.tell(lambda: heard.append("second"), ("PING",))
    with pytest.raises(RedisAway):
        await blocked
    assert heard == ["first", "first", "second"]
    assert not shared.up
    with running_valkey(tmp_path, port):
        await eventually(lambda: _up(shared))
        assert await shared.call("PING")
        await shared.close()


async def _up(shared: SharedConnection) -> bool:
    return shared.up


async def test_a_primary_that_becomes_a_replica_is_left(
    valkey: str, tmp_path: Path
) -> None:
    client = connect(valkey)
    shared = SharedConnection(client)
    await shared.open()
    port = free_port()
    with running_valkey(tmp_path, port):
        await client.execute_command("REPLICAOF", "127.0.0.1", port)  # type: ignore[no-untyped-call]
        # The server does not disconnect clients by itself.
        with pytest.raises(Refused, match="READONLY"):
            await shared.call("SET", "k", "v")
        assert not shared.up
        stayed = await client.client_id()
        with pytest.raises(ReadOnlyError):
            await client.set("k", "v")
        assert await client.client_id() != stayed
        payloads = PayloadStream(valkey, "events")
        with pytest.raises(RedisAway, match="it is a replica now"):
            await asyncio.to_thread(payloads.append, [Payload("r", 1)])
        payloads.close()
        await client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
        await eventually(lambda: _up(shared))
        assert await shared.call("SET", "k", "v") == b"OK"
    await shared.close()
    await client.aclose()


async def test_a_redis_that_hangs_is_given_up(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as url:
        client = connect(url)
        pid = (await client.info("server"))["process_id"]
        shared = SharedConnection(client)
        await shared.open()
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(RedisAway):
                await asyncio.wait_for(shared.call("PING"), 60)
        finally:
            os.kill(pid, signal.SIGCONT)
        await shared.close()
        await client.aclose()
