"""One running product for all tests of the folder."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.clients.dashboard import Dashboard, dashboard


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def product(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Dashboard]:
    async with dashboard(tmp_path_factory.mktemp("dashboard")) as found:
        yield found
