"""The gateway's connection to a Cluster, against scripted nodes: what is sent again, in
which order, and what fails. With real nodes:
tests/integration/redis/test_cluster_connection.py."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from libs.common.errors import RedisAway
from libs.common.redis.cluster import connection as module
from libs.common.redis.cluster.client import ClusterClient
from libs.common.redis.cluster.connection import ClusterConnection
from libs.common.redis.shared_connection import Refused, connect
from tests.support.databases.resp import HANG_UP, SILENCE, Command, Raw
from tests.support.databases.scripted_cluster import (
    DOWN,
    SLOT,
    ScriptedCluster,
    scripted_cluster,
)
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONNECT_PAUSE_S", 0.01)


@asynccontextmanager
async def connected(
    answer: Callable[[Command], Any],
) -> AsyncIterator[tuple[ClusterConnection, ScriptedCluster]]:
    async with scripted_cluster(answer) as cluster:
        client = connect(cluster.url)
        assert isinstance(client, ClusterClient)
        made = ClusterConnection(client)
        await made.open()
        try:
            yield made, cluster
        finally:
            await made.close()


def echo(command: Command) -> Any:
    return command[1]


async def until_up(connection: ClusterConnection) -> None:
    async def up() -> bool:
        return connection.up

    await eventually(up)


async def test_calls_of_one_turn_get_each_its_own_reply() -> None:
    async with connected(echo) as (connection, _):
        calls = [connection.call("ECHO", str(n)) for n in range(100)]
        busy = [connection.busy]
        assert await asyncio.gather(*calls) == [b"%d" % n for n in range(100)]
        assert [*busy, connection.busy] == [True, False]
        assert await connection.ask(int, ("ECHO", "7")) == 7
        assert connection.connections == 1


async def test_what_cannot_be_sent_is_refused() -> None:
    async with connected(echo) as (connection, _):
        failed: list[None] = []
        wrong, right = connection.call("ECHO", object()), connection.call("ECHO", "a")
        connection.tell(lambda: failed.append(None), ("ECHO", object()))
        with pytest.raises(Refused, match="cannot be sent"):
            await wrong
        assert (await right, len(failed)) == (b"a", 1)


async def test_redirected_calls_and_those_made_meanwhile_keep_their_order() -> None:
    executed: list[bytes] = []

    def answer(command: Command) -> Any:
        executed.append(command[1])
        return command[1]

    async with connected(answer) as (connection, cluster):
        cluster.owner = 1
        calls = [connection.call("ECHO", str(n)) for n in range(10)]
        while connection.connections == 1:
            calls.append(connection.call("ECHO", str(len(calls))))
            await asyncio.sleep(0)
        assert await asyncio.gather(*calls) == [b"%d" % n for n in range(len(calls))]
        assert executed == [b"%d" % n for n in range(len(calls))]
        assert connection.up
        assert connection.connections == 2


async def test_a_caller_that_left_is_sent_to_the_new_owner_all_the_same() -> None:
    executed: list[bytes] = []

    def answer(command: Command) -> Any:
        executed.append(command[1])
        return command[1]

    async with connected(answer) as (connection, cluster):
        cluster.owner = 1
        connection.call("ECHO", "acquire").cancel()
        assert await connection.call("ECHO", "release") == b"release"
        assert executed == [b"acquire", b"release"]


async def test_nodes_that_redirect_to_each_other_fail_the_calls() -> None:
    failed: list[None] = []
    async with connected(echo) as (connection, cluster):
        cluster.believes = {0: 1, 1: 0}
        waiting = connection.call("ECHO", "a")
        connection.tell(lambda: failed.append(None), ("ECHO", "b"))
        with pytest.raises(RedisAway, match="cannot be used"):
            await waiting
        assert failed == [None]
        cluster.believes = {}
        await until_up(connection)
        assert await connection.call("ECHO", "c") == b"c"


async def test_a_new_owner_that_cannot_be_reached_fails_the_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FOLLOW_WITHIN_S", 0.1)
    async with connected(echo) as (connection, cluster):
        nowhere = Exception(f"MOVED {SLOT} 127.0.0.1:1")
        cluster.answer = lambda _: nowhere
        cluster.states = dict.fromkeys(range(3), DOWN)
        with pytest.raises(RedisAway, match="cannot be used"):
            await connection.call("ECHO", "a")
        with pytest.raises(RedisAway, match="not connected"):
            await connection.call("ECHO", "a")
        cluster.answer, cluster.states = echo, {}
        await until_up(connection)
        assert await connection.call("ECHO", "b") == b"b"


async def test_a_new_owner_is_given_up_although_a_cancellation_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FOLLOW_WITHIN_S", 0.1)
    attempts = 0

    async def fails(_: ClusterConnection) -> Any:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            with suppress(asyncio.CancelledError):  # of the timeout
                await asyncio.get_running_loop().create_future()
        raise RedisAway("Redis cannot be reached.")

    nowhere = Exception(f"MOVED {SLOT} 127.0.0.1:1")
    async with connected(lambda _: nowhere) as (connection, _):
        monkeypatch.setattr(ClusterConnection, "_connect", fails)
        with pytest.raises(RedisAway, match="cannot be used"):
            await asyncio.wait_for(connection.call("ECHO", "a"), 30)
    assert attempts > 0


async def test_an_owner_that_dies_while_its_redirection_is_followed() -> None:
    """Nobody knows whether the later calls were executed."""
    moved = iter([True])

    def answer(command: Command) -> Any:
        if next(moved, False):
            return Exception(f"MOVED {SLOT} 127.0.0.1:1")
        return HANG_UP if command[1] == b"die" else command[1]

    async with connected(answer) as (connection, _):
        calls = [connection.call("ECHO", word) for word in ("a", "die", "b")]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in found] == [RedisAway] * 3
        await until_up(connection)
        assert await connection.call("ECHO", "c") == b"c"


async def test_a_lost_connection_fails_its_calls_and_comes_back() -> None:
    failed: list[None] = []
    async with connected(lambda _: HANG_UP) as (connection, cluster):
        connection.tell(lambda: failed.append(None), ("ECHO", "a"))
        with pytest.raises(RedisAway):
            await connection.call("ECHO", "b")
        assert failed == [None]
        cluster.answer = echo
        await until_up(connection)
        assert await connection.call("ECHO", "c") == b"c"


async def test_a_node_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.05)
    async with connected(lambda _: SILENCE) as (connection, cluster):
        with pytest.raises(RedisAway, match="does not answer"):
            await connection.call("ECHO", "a")
        cluster.answer = echo


@pytest.mark.parametrize("sign", ["CLUSTERDOWN The cluster is down", "READONLY no"])
async def test_a_node_that_serves_nobody_is_left(sign: str) -> None:
    async with connected(lambda _: Exception(sign)) as (connection, cluster):
        with pytest.raises(Refused, match=sign.partition(" ")[0]):
            await connection.call("ECHO", "a")
        assert not connection.up
        cluster.answer, cluster.owner = echo, 2
        await until_up(connection)
        assert await connection.call("ECHO", "b") == b"b"


async def test_an_error_reply_fails_its_own_call_only() -> None:
    answers = {b"a": b"a", b"b": Exception("TRYAGAIN later"), b"c": b"c"}
    async with connected(lambda c: answers[c[1]]) as (connection, _):
        one, wrong, other = (connection.call("ECHO", n) for n in "abc")
        assert (await one, await other) == (b"a", b"c")
        with pytest.raises(Refused, match="TRYAGAIN"):
            await wrong
        assert connection.connections == 1


async def test_what_is_no_resp_ends_the_connection() -> None:
    async with connected(lambda _: Raw(b"HTTP/1.1 400\r\n")) as (connection, cluster):
        with pytest.raises(RedisAway, match="does not speak RESP"):
            await connection.call("ECHO", "a")
        cluster.answer = echo
        await until_up(connection)


async def test_a_key_that_moved_already_is_asked_for_at_the_target() -> None:
    async with connected(echo) as (connection, cluster):
        _, port = cluster.address(1)

        def target(command: Command) -> Any:
            if command[0] == b"ASKING":
                return "OK"
            return Exception("ERR no") if command[1] == b"bad" else b"there"

        cluster.answer = lambda _: Exception(f"ASK {SLOT} 127.0.0.1:{port}")
        cluster.nodes[1].answer = target
        assert await connection.call("GET", "k") == b"there"
        with pytest.raises(Refused, match="no"):
            await connection.call("GET", "bad")
        # The target would refuse it.
        with pytest.raises(Refused, match="ASK"):
            await connection.call("FCALL", "f", 1, "k")
        cluster.nodes[1].answer = lambda _: HANG_UP
        with pytest.raises(RedisAway, match="is moving its keys"):
            await connection.call("GET", "k")
        assert connection.connections == 1


async def test_it_keeps_trying_while_no_node_has_the_slot() -> None:
    async with scripted_cluster(echo) as cluster:
        cluster.states = dict.fromkeys(range(3), DOWN)
        client = connect(cluster.url)
        assert isinstance(client, ClusterClient)
        connection = ClusterConnection(client)
        await connection.open()
        assert not connection.up
        assert not connection.busy
        cluster.states = {}
        await until_up(connection)
        await connection.close()


async def test_it_closes_although_an_attempt_loses_the_cancellation() -> None:
    """As one to a lost node may: with Python 3.11 the gateway did not end."""
    async with connected(echo) as (connection, _):
        begun, lost = asyncio.Event(), asyncio.Event()

        async def attempt() -> Any:
            if lost.is_set():
                raise RedisAway
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.set()
                raise RedisAway from None

        connection._connect = attempt  # type: ignore[method-assign]
        assert connection._wire is not None
        connection._wire.drop("was lost")
        await begun.wait()
        await asyncio.wait_for(connection.close(), 60)
        assert lost.is_set()
