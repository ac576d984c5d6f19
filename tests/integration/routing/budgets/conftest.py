"""A scene for each test, with an emptied Redis."""

from collections.abc import AsyncIterator

import pytest_asyncio

from libs.common.redis.shared_connection import connect
from tests.integration.routing.budgets.scene import Scene
from tests.support.databases.valkey import empty


@pytest_asyncio.fixture
async def scene(valkey: str) -> AsyncIterator[Scene]:
    empty(valkey)
    async with connect(valkey) as client:
        made = Scene(client)
        await made.start()
        yield made
