"""The functions on all primaries of a Cluster, with scripted nodes."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from libs.common.errors import RedisAway
from libs.common.redis.cluster.client import ClusterClient
from libs.common.redis.keys import Keys
from libs.common.redis.shared_connection import connect
from services.router.cluster.library import ClusterLibrary
from tests.support.databases.resp import HANG_UP, Command
from tests.support.databases.scripted_cluster import ScriptedCluster, scripted_cluster

pytestmark = pytest.mark.asyncio

OURS = "#!lua name=rpx\n-- version 2.0\n"
NEWER = OURS.replace("2.0", "3.0")


class Leader:
    def __init__(self) -> None:
        self.leads = True

    async def hold(self) -> bool:
        return self.leads


class Scene:
    """Nodes that keep what is loaded."""

    def __init__(self, cluster: ScriptedCluster, client: ClusterClient) -> None:
        self.cluster = cluster
        self.client = client
        self.leader = Leader()
        self.library = ClusterLibrary(client, OURS, self.leader)
        self.code: dict[int, str] = {}
        self.loads: Counter[int] = Counter()
        for number, node in enumerate(cluster.nodes):
            node.answer = partial(self._answer, number)

    def _answer(self, number: int, command: Command) -> Any:
        if command[0] == b"CLUSTER":
            return self.cluster.reply(number, command)
        if command[1] == b"LOAD":
            self.code[number] = command[3].decode()
            self.loads[number] += 1
            return b"rpx"
        if number not in self.code:
            return []
        return [[b"library_code", self.code[number].encode()]]


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with scripted_cluster(len) as cluster:
        client = connect(cluster.url)
        assert isinstance(client, ClusterClient)
        async with client:
            await client.finder.owner()
            yield Scene(cluster, client)


async def test_the_functions_are_loaded_once_where_the_slot_is_not() -> None:
    async with scene() as found:
        for _ in range(3):
            await found.library.look()
        assert found.loads == {1: 1, 2: 1}
        assert found.code == {1: OURS, 2: OURS}
        del found.code[2]  # it was emptied
        await found.library.look()
        assert found.loads == {1: 1, 2: 2}


async def test_the_library_of_another_stack_is_no_matter() -> None:
    async with scene() as found:
        asked: list[Command] = []

        def answer(command: Command) -> Any:
            asked.append(command)
            return [] if command[1] == b"LIST" else b"b_2"

        for number in (1, 2):
            found.cluster.nodes[number].answer = answer
        leads, keys = found.leader, Keys("b_2")
        await ClusterLibrary(found.client, OURS, leads, keys).look()
        listed = [command for command in asked if command[1] == b"LIST"]
        assert [command[3] for command in listed] == [b"b_2", b"b_2"]


async def test_a_former_owner_forgets_what_it_counted() -> None:
    async with scene() as found:
        await found.library.look()
        found.cluster.owner = 1
        await found.client.finder.owner()
        found.code[0] = OURS  # by the publisher, when it had the slot
        for _ in range(2):
            await found.library.look()
        assert found.loads == {0: 1, 1: 1, 2: 1}


async def test_a_newer_library_is_left_in_place() -> None:
    async with scene() as found:
        found.code = {1: NEWER}
        await found.library.look()
        assert found.loads == {2: 1}


async def test_only_the_leader_loads() -> None:
    async with scene() as found:
        found.leader.leads = False
        await found.library.look()
        assert not found.loads


async def test_a_node_that_fails_keeps_no_other_from_getting_them() -> None:
    async with scene() as found:
        found.cluster.nodes[1].answer = lambda _: HANG_UP
        with pytest.raises(RedisAway):
            await found.library.look()
        assert found.loads == {2: 1}
