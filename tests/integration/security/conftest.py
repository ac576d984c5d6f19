"""The running product with proxy keys, for the tests of tenants."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from libs.common.redis.shared_connection import connect as connect_redis
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import running_fleet
from tests.support.upstreams.simulator import Simulator
from tests.support.worlds.tenants import PLAN, UPSTREAM_KEYS, Tenants


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tenants(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Tenants]:
    folder: Path = tmp_path_factory.mktemp("tenants")
    empty(valkey_server)
    redis = connect_redis(valkey_server)
    async with (
        Simulator(UPSTREAM_KEYS) as simulator,
        running_fleet(PLAN, simulator, valkey_server, folder) as fleet,
    ):
        found = Tenants(fleet, redis)
        yield found
        await found.http.aclose()
    await redis.aclose()
