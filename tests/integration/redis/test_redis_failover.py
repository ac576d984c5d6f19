"""Redis behind Sentinels, under load: all services follow to the new primary."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.support.databases.sentinels import watched_pair
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import HOST, Plan, running_fleet
from tests.support.processes.following import followed, load_on, settled
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio

KEYS = {"sk-a1": "a", "sk-a2": "a", "sk-b1": "b", "sk-b2": "b"}
SENTINELS_ASK = {"ping", "info", "publish", "subscribe", "client|setname"}
# After the Sentinel has announced the new primary.
FOLLOWED_WITHIN_S = 60


async def test_everybody_follows_to_the_new_primary_and_the_ledger_closes(
    tmp_path: Path,
) -> None:
    ports = {f"PROXY_{name}_PORT": str(free_port()) for name in ("HEALTH", "INGEST")}
    plan = Plan(KEYS, 2, ("router", "health", "ingest"), ports)
    services = [f"{HOST}:{port}" for port in ports.values()]
    async with (
        watched_pair(tmp_path) as watched,
        Simulator(KEYS) as simulator,
        running_fleet(plan, simulator, watched.url, tmp_path) as fleet,
    ):
        members = (fleet.router, *fleet.gateways)
        everybody = [*services, *(member.origin for member in members)]
        async with load_on([g.url for g in fleet.gateways]) as load:
            # Nobody may stay connected to a former primary that does not know its new
            # role.
            before = await watched.change_over()
            await eventually(lambda: _left(before.port), FOLLOWED_WITHIN_S)
            await followed(fleet, everybody, FOLLOWED_WITHIN_S)
            await load.went_on()
            await watched.demote(before)
            await watched.kill_primary()
            await followed(fleet, everybody, FOLLOWED_WITHIN_S)
            await load.went_on()
        await settled(fleet, load)
        degraded = "SELECT count(*) FROM decisions WHERE degraded"
        assert fetch(fleet.database, degraded)[0][0] > 0


async def _left(port: int) -> bool:
    """Whether nobody is connected there except us and its replication."""
    async with Redis(port=port) as client:
        clients = await client.client_list()
        assert (await client.info("replication"))["role"] == "master"
    ours = [c for c in clients if c["cmd"] != "client|list" and c["flags"] == "N"]
    busy = [c for c in ours if c["cmd"] not in SENTINELS_ASK]
    return not busy
