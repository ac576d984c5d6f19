"""The whole product on a Redis Cluster, under load: the slot of the routing keys moves,
and the node that has it is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from libs.cli.checks import servers
from libs.cli.checks.finding import Context, Level
from tests.support.databases.sql import fetch
from tests.support.databases.valkey_cluster import Node, ValkeyCluster, valkey_cluster
from tests.support.processes.fleet import HOST, Fleet, Plan, running_fleet
from tests.support.processes.following import (
    Load,
    closed,
    followed,
    load_on,
    settled,
)
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio

KEYS = {"sk-a1": "a", "sk-a2": "a", "sk-b1": "b", "sk-b2": "b"}
DEGRADED = "SELECT count(*) FROM decisions WHERE degraded"


@dataclass(frozen=True)
class Scene:
    """All services, two gateways among them, on a cluster."""

    cluster: ValkeyCluster
    fleet: Fleet
    everybody: list[str]  # their addresses

    async def went_on(self, load: Load) -> None:
        await followed(self.fleet, self.everybody)
        await load.went_on()

    @asynccontextmanager
    async def load(self) -> AsyncIterator[Load]:
        async with load_on([gateway.url for gateway in self.fleet.gateways]) as load:
            yield load


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    ports = {f"PROXY_{name}_PORT": str(free_port()) for name in ("HEALTH", "INGEST")}
    plan = Plan(KEYS, 2, ("router", "health", "ingest"), ports)
    async with (
        valkey_cluster(folder, replicas=True) as cluster,
        Simulator(KEYS) as simulator,
        running_fleet(plan, simulator, cluster.url, folder) as fleet,
    ):
        members = (fleet.router, *fleet.gateways)
        services = [f"{HOST}:{port}" for port in ports.values()]
        everybody = [*services, *(member.origin for member in members)]
        yield Scene(cluster, fleet, everybody)


async def test_the_slot_moves_under_load(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        cluster, fleet = found.cluster, found.fleet
        target = await cluster.other()
        await eventually(partial(_has_functions, target))
        async with found.load() as load:
            await cluster.move(target)
            await found.went_on(load)
            await cluster.hand_over()
            await found.went_on(load)
        # Calls that were redirected were sent again: nobody had to route by itself.
        await eventually(lambda: closed(fleet, len(load.answered)))
        assert fetch(fleet.database, DEGRADED) == [(0,)]
        source, target = await cluster.owner(), await cluster.other()
        async with found.load() as more:
            # Key by key: until the end functions are refused, and gateways route by
            # themselves.
            await cluster.begin_move(source, target)
            await more.went_on()
            assert await cluster.move_keys(source, target) > 0
            await more.went_on()
            await cluster.end_move(source, target)
            await found.went_on(more)
        more.answered += load.answered
        await settled(fleet, more)


@pytest.mark.parametrize("hang", [False, True], ids=["killed", "hangs"])
async def test_the_node_with_the_slot_is_lost_under_load(
    tmp_path: Path, *, hang: bool
) -> None:
    async with scene(tmp_path) as found:
        cluster = found.cluster
        async with found.load() as load:
            gone = await cluster.fail_over(hang=hang)
            await found.went_on(load)
            await cluster.bring_back(gone)
            await found.went_on(load)
        await settled(found.fleet, load)
        findings = await _lines(cluster)
        assert set(findings.values()) == {Level.OK}
        # The new owner had them as a replica; the router loads them on the others.
        primaries = [n for n, v in await cluster.views() if "master" in v.flags]
        assert [await node.libraries() for node in primaries] == [["rpx"]] * 3


async def _has_functions(node: Node) -> bool:
    return await node.libraries() == ["rpx"]


async def _lines(cluster: ValkeyCluster) -> dict[str, Level]:
    """What doctor says: the worst level for each subject."""
    context = Context({"PROXY_REDIS_URL": cluster.url}, 5.0)
    found = await asyncio.to_thread(lambda: list(servers.redis(context)))
    levels = list(Level)
    worst: dict[str, Level] = {}
    for each in found:
        before = worst.get(each.subject, Level.OK)
        worst[each.subject] = max(before, each.level, key=levels.index)
    return worst
