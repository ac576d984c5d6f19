"""One router for each module, with a few stored requests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.router.process.running import Standing, fill, router
from tests.support.databases.valkey import empty
from tests.support.processes.waiting import eventually


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Standing]:
    empty(valkey_server)
    async with router(valkey_server, tmp_path_factory.mktemp("router")) as standing:
        await fill(standing.database)
        yield standing


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(standing: Standing) -> Standing:
    """The router, once it has filled an emptied Redis."""
    await standing.empty_redis()
    await eventually(standing.whole)
    return standing
