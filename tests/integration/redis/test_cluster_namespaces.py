"""Three stacks on one Redis Cluster, on a node each: they share no node, no key and no
function, and one of them moves to the node of another."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from libs.cli.checks import servers
from libs.cli.checks.finding import Context, Level
from libs.common.contracts.catalogue import Catalogue
from libs.common.redis.client import ClientCaller
from libs.common.redis.cluster.client import ClusterClient
from libs.common.redis.cluster.layout import slot_of
from libs.common.redis.hot_connection import hot_connection
from libs.common.redis.keys import Keys
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import digest
from services.router.cluster.library import ClusterLibrary
from services.router.function_library import library
from tests.support.databases.valkey_cluster import ValkeyCluster, valkey_cluster
from tests.support.memory.twin import resource
from tests.support.processes.waiting import eventually
from tests.support.values.asks import made_ask, made_release

pytestmark = pytest.mark.asyncio

APART = [Keys(name) for name in ("b", "c", "d")]  # by their slots, on a node each
TOGETHER = Keys("rpx"), Keys("b")  # on one node
MOST = 2_000


class Leader:
    async def hold(self) -> bool:
        return True


class Stack:
    """A router's functions, and those of a gateway."""

    def __init__(self, url: str, keys: Keys, source: str | None = None) -> None:
        self.keys = keys
        self.source = source or library(keys)
        client = connect(url, keys)
        assert isinstance(client, ClusterClient)
        self.client = client
        self.hot = hot_connection(url, keys)
        stream, caller = keys.tagged_stream, ClientCaller(client)
        self.router = RoutingFunctions(caller, stream, None, self.source, keys=keys)
        self.gateway = RoutingFunctions(self.hot, stream, keys=keys)
        self.served = 0
        self.over = False

    async def start(self) -> None:
        await self.hot.open()
        await self.router.load_library()
        catalogue = Catalogue(version="v1", resources=(resource("a1"),))
        await self.router.publish(catalogue, "event")
        await ClusterLibrary(self.client, self.source, Leader(), self.keys).look()

    async def stop(self) -> None:
        self.over = True
        await self.hot.close()
        await self.client.aclose()

    async def serve(self) -> None:
        """Requests until it is over."""
        while not self.over:
            request = f"r{self.served}"
            await self.gateway.acquire(made_ask(request))
            await self.gateway.release(made_release("a1", request))
            self.served += 1

    async def went_on(self) -> None:
        enough = self.served + 50

        async def more() -> bool:
            return self.served >= enough

        await eventually(more)

    async def events(self) -> int:
        entries: Any = await self.client.xrange(self.keys.tagged_stream)
        return sum(fields[b"kind"] == b"request" for _, fields in entries)


@asynccontextmanager
async def stacks(url: str, namespaces: Sequence[Keys]) -> AsyncIterator[list[Stack]]:
    async with AsyncExitStack() as stack:
        made = [Stack(url, keys) for keys in namespaces]
        for each in made:
            stack.push_async_callback(each.stop)
            await each.start()
        yield made


async def names_on(cluster: ValkeyCluster) -> list[set[str]]:
    """The tags of the keys on each node."""
    found = [await node.ask("KEYS", "*") for node in cluster.nodes]
    return [{name.partition(":")[0] for name in names} for names in found]


def slot_line(cluster: ValkeyCluster, keys: Keys) -> str:
    """What doctor says of the slot of a namespace."""
    given = {"PROXY_REDIS_URL": cluster.url, "PROXY_REDIS_NAMESPACE": keys.namespace}
    findings = list(servers.redis(Context(given, 5.0)))
    assert [f for f in findings if f.level is Level.FAILED] == []
    (line,) = (f.state for f in findings if "in which all keys are" in f.state)
    return line


async def test_three_stacks_have_a_node_each(tmp_path: Path) -> None:
    async with valkey_cluster(tmp_path) as cluster, stacks(cluster.url, APART) as made:
        async with asyncio.TaskGroup() as group:
            for stack in made:
                group.create_task(stack.serve())
            await asyncio.gather(*(stack.went_on() for stack in made))
            for stack in made:
                stack.over = True
        assert await names_on(cluster) == [{"{b}"}, {"{c}"}, {"{d}"}]
        assert [await node.libraries() for node in cluster.nodes] != []
        for node in cluster.nodes:
            assert sorted(await node.libraries()) == ["b", "c", "d"]
        for stack in made:
            assert await stack.events() == stack.served
        for keys, node in zip(APART, cluster.nodes, strict=True):
            line = await asyncio.to_thread(slot_line, cluster, keys)
            assert f"slot {slot_of(keys)} of {keys.tag}" in line
            assert f"is at 127.0.0.1:{node.port}" in line


async def test_one_moves_to_the_node_of_another(tmp_path: Path) -> None:
    async with valkey_cluster(tmp_path) as cluster, stacks(cluster.url, APART) as made:
        moving, neighbor, _ = made
        async with asyncio.TaskGroup() as group:
            for stack in made:
                group.create_task(stack.serve())
            await asyncio.gather(*(stack.went_on() for stack in made))
            await cluster.move(cluster.nodes[1], moving.keys)
            await asyncio.gather(*(stack.went_on() for stack in made))
            for stack in made:
                stack.over = True
        assert await names_on(cluster) == [set(), {"{b}", "{c}"}, {"{d}"}]
        assert (moving.hot.connections, neighbor.hot.connections) == (2, 1)
        for stack in made:
            assert await stack.events() == stack.served
            assert await stack.router.in_flight() == 0


async def test_the_bound_on_keys_is_that_of_a_slot(tmp_path: Path) -> None:
    """What another stack on the same node remembers ends nothing here."""
    ours, theirs = TOGETHER
    small = library(ours).replace("MOST_KEYS = 1000000", f"MOST_KEYS = {MOST}")
    async with valkey_cluster(tmp_path) as cluster:
        stack = Stack(cluster.url, ours, small)
        await stack.start()
        for start in range(0, 3 * MOST, 500):
            names = (f"{theirs.tag}:bound:{n}" for n in range(start, start + 500))
            words = [part for name in names for part in (name, "-")]
            await cluster.nodes[0].ask("MSET", *words)
        ids = [digest(f"resp_{number}") for number in range(2 * MOST)]
        for start in range(0, MOST // 2, 8):
            await stack.router.adopt({}, dict.fromkeys(ids[start : start + 8]))
        slot = slot_of(ours)
        counts = "CLUSTER", "COUNTKEYSINSLOT", slot
        assert await cluster.nodes[0].ask(*counts) >= MOST // 2
        for start in range(0, 2 * MOST, 8):
            await stack.router.adopt({}, dict.fromkeys(ids[start : start + 8]))
        assert MOST - 200 < await cluster.nodes[0].ask(*counts) < MOST + 200
        counts = "CLUSTER", "COUNTKEYSINSLOT", slot_of(theirs)
        assert await cluster.nodes[0].ask(*counts) == 3 * MOST
        await stack.stop()
