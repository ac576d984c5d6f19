"""One running product for each module; each test begins without providers."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from libs.common.redis.shared_connection import connect as connect_redis
from tests.integration.router.registry.world import OURS, PLAN, THEIRS, World
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import running_fleet
from tests.support.upstreams.simulator import Simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("fleet")
    redis = connect_redis(valkey_server)
    async with (
        Simulator(OURS) as ours,
        Simulator(THEIRS) as theirs,
        running_fleet(PLAN, ours, valkey_server, folder) as fleet,
    ):
        theirs.state.journal.keep_bodies = True
        made = World(fleet, theirs, redis, folder)
        yield made
        await made.http.aclose()
    await redis.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def world(standing: World) -> AsyncIterator[World]:
    yield standing
    await standing.clear()
    await standing.adopted()
