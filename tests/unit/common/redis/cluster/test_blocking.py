"""The client for threads, against scripted nodes."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import RedisError, ResponseError

from libs.common.redis.cluster.blocking import BlockingClusterClient
from libs.common.redis.cluster.client import NotUpError
from libs.common.redis.factory import blocking_client, blocking_finder
from tests.support.databases.resp import Command
from tests.support.databases.scripted_cluster import (
    DOWN,
    SLOT,
    ScriptedCluster,
    scripted_cluster,
)

pytestmark = pytest.mark.asyncio


def count(command: Command) -> Any:
    return len(command)


async def with_client(
    cluster: ScriptedCluster, use: Callable[[BlockingClusterClient], Any]
) -> Any:
    def used() -> Any:
        with blocking_client(cluster.url, 1.0, 1.0) as client:
            assert isinstance(client, BlockingClusterClient)
            return use(client)

    return await asyncio.to_thread(used)


async def test_redirections_are_followed_and_functions_guarded() -> None:
    async with scripted_cluster(count) as cluster:

        def use(client: BlockingClusterClient) -> None:
            for owner in (1, 2, 0):
                cluster.owner = owner
                assert client.execute_command("FCALL", "f", 1, "k") == 5
                assert client.finder.nodes.owner == cluster.address(owner)

        await with_client(cluster, use)


async def test_a_raw_connection_goes_to_the_owner_that_is_known_by_then() -> None:
    async with scripted_cluster(count) as cluster:

        def use(client: BlockingClusterClient) -> None:
            connection: Any = client.connection_pool.make_connection()
            for owner in (1, 2):
                cluster.owner = owner
                client.finder.nodes.told(cluster.address(owner))
                connection.connect()
                assert connection.port == cluster.address(owner)[1]
            connection.disconnect()

        await with_client(cluster, use)


async def test_nodes_that_redirect_to_each_other_end_in_an_error() -> None:
    async with scripted_cluster(count) as cluster:
        cluster.believes = {0: 1, 1: 0}
        with pytest.raises(NotUpError, match="redirect"):
            await with_client(cluster, lambda client: client.execute_command("PING"))


async def test_a_node_that_is_cut_off_is_not_believed() -> None:
    async with scripted_cluster(count) as cluster:
        cluster.owner, cluster.believes, cluster.states = 1, {0: 0}, {0: DOWN}
        owner = await with_client(cluster, lambda client: client.finder.owner())
        assert owner == cluster.address(1)
        cluster.states = dict.fromkeys(range(3), DOWN)
        with pytest.raises(NotUpError, match="down"):
            await with_client(cluster, lambda client: client.finder.owner())


async def test_a_slot_that_nobody_has_is_an_error() -> None:
    async with scripted_cluster(count) as cluster:
        cluster.slots = SLOT + 1
        with pytest.raises(NotUpError, match="no node has"):
            await with_client(cluster, lambda client: client.finder.owner())


async def test_one_node_is_asked() -> None:
    async with scripted_cluster(count) as cluster:
        finder = blocking_finder(cluster.url, 1.0)
        first = cluster.address(0)
        assert await asyncio.to_thread(finder.ask, first, ("A",), ("B", "C")) == [1, 2]
        primaries = await asyncio.to_thread(finder.primaries, first)
        assert primaries == [cluster.address(n) for n in range(3)]
        with pytest.raises(ResponseError):
            await asyncio.to_thread(finder.ask, cluster.address(1), ("A",))
    with pytest.raises(RedisError):
        await asyncio.to_thread(finder.owner)
