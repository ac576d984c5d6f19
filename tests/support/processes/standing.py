"""Fixtures: one gateway and simulated upstream per module; each test begins with an
emptied Redis. A test module that uses them names this one in `pytest_plugins`, uses a
module-scoped loop, and sets the gateway's settings in `GATEWAY`."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.databases.valkey import empty
from tests.support.processes.stack import Stack, gateway_stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    request: pytest.FixtureRequest,
    valkey_server: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("gateway")
    settings: dict[str, str] = getattr(request.module, "GATEWAY", {})
    async with gateway_stack(valkey_server, folder, **settings) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def stack(standing: Stack, valkey: str) -> Stack:
    await standing.reset()
    return standing
