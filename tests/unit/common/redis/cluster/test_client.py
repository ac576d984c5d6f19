"""The client that follows the slot, against scripted nodes. With real ones:
tests/integration/redis/test_cluster_connection.py."""

from typing import Any

import pytest
from redis.exceptions import RedisError, TryAgainError

from libs.common.redis.cluster.client import ClusterClient, NotUpError
from libs.common.redis.shared_connection import connect
from tests.support.databases.resp import HANG_UP, Command
from tests.support.databases.scripted_cluster import DOWN, SLOT, scripted_cluster

pytestmark = pytest.mark.asyncio


def count(command: Command) -> Any:
    return len(command)


def of(url: str) -> ClusterClient:
    made = connect(url)
    assert isinstance(made, ClusterClient)
    return made


async def test_the_owner_is_asked() -> None:
    async with scripted_cluster(count) as cluster:
        cluster.owner = 1
        async with of(cluster.url) as client:
            assert await client.execute_command("ECHO", "a") == 2
            assert client.finder.nodes.owner == cluster.address(1)


async def test_a_function_call_is_guarded() -> None:
    async with scripted_cluster(count) as cluster, of(cluster.url) as client:
        assert await client.execute_command("FCALL", "f", 1, "k") == 5


async def test_redirections_are_followed() -> None:
    async with scripted_cluster(count) as cluster, of(cluster.url) as client:
        for owner in (2, 0, 1):
            cluster.owner = owner
            assert await client.execute_command("ECHO", "a") == 2
            assert client.finder.nodes.owner == cluster.address(owner)


async def test_idle_connections_to_a_former_owner_are_not_used() -> None:
    async with scripted_cluster(count) as cluster, of(cluster.url) as client:
        pool: Any = client.connection_pool
        connections = [await pool.get_connection() for _ in range(8)]
        for connection in connections:
            await pool.release(connection)
        cluster.owner = 1
        for _ in connections:
            assert await client.execute_command("ECHO", "a") == 2


async def test_nodes_that_redirect_to_each_other_end_in_an_error() -> None:
    async with scripted_cluster(count) as cluster, of(cluster.url) as client:
        cluster.believes = {0: 1, 1: 0}
        with pytest.raises(NotUpError, match="redirect"):
            await client.execute_command("ECHO", "a")


async def test_a_node_that_is_cut_off_is_not_believed() -> None:
    async with scripted_cluster(count) as cluster, of(cluster.url) as client:
        cluster.owner, cluster.believes, cluster.states = 1, {0: 0}, {0: DOWN}
        assert await client.finder.owner() == cluster.address(1)
        assert client.finder.nodes.known[-1] == cluster.address(0)
        cluster.states = dict.fromkeys(range(3), DOWN)
        with pytest.raises(NotUpError, match="down"):
            await client.finder.owner()


async def test_the_cause_is_that_of_nodes_that_cannot_be_reached() -> None:
    async with scripted_cluster(count, nodes=1) as cluster:
        url = cluster.url
    async with of(url) as client:
        with pytest.raises(RedisError, match="connecting"):
            await client.finder.owner()
        with pytest.raises(RedisError, match="connecting"):
            await client.finder.primaries()


async def test_a_slot_that_nobody_has_is_an_error() -> None:
    async with scripted_cluster(count) as cluster, of(cluster.url) as client:
        cluster.slots = SLOT + 1
        with pytest.raises(NotUpError, match=f"no node has the slot {SLOT}"):
            await client.finder.owner()


async def test_all_primaries_are_known_by_any_node() -> None:
    async with scripted_cluster(count) as cluster, of(cluster.url) as client:
        found = await client.finder.primaries()
        assert found == [cluster.address(n) for n in range(3)]
        async with client.of_node(found[2]) as node:
            with pytest.raises(RedisError, match=str(cluster.address(0)[1])):
                await node.execute_command("ECHO", "a")  # type: ignore[no-untyped-call]


async def test_a_key_that_moved_already_is_asked_for_at_the_target() -> None:
    asked: list[bytes] = []

    async with scripted_cluster(count) as cluster, of(cluster.url) as client:
        host, port = cluster.address(1)

        def answer(command: Command) -> Any:
            return Exception(f"ASK {SLOT} {host}:{port}")

        def target(command: Command) -> Any:
            asked.append(command[0])
            return "OK" if command[0] == b"ASKING" else b"there"

        cluster.answer, cluster.nodes[1].answer = answer, target
        assert await client.execute_command("GET", "k") == b"there"
        assert await client.send_asking((host, port), b"*1\r\n$4\r\nPING\r\n")
        assert asked == [b"ASKING", b"GET", b"ASKING", b"PING"]
        with pytest.raises(TryAgainError):
            await client.execute_command("FCALL", "f", 1, "k")
        assert len(asked) == 4


async def test_a_connection_that_cannot_be_made_is_closed() -> None:
    async with scripted_cluster(lambda _: HANG_UP) as cluster:
        client = of(cluster.url)
        with pytest.raises(RedisError):
            await client.execute_command("GET", "k")
        await client.aclose()
