"""One gateway for each module, which no test may harm."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.support.clients import raw
from tests.support.processes.stack import Stack


@pytest_asyncio.fixture(loop_scope="module")
async def stack(standing: Stack) -> AsyncIterator[Stack]:
    async with raw.unharmed(standing):
        yield standing
