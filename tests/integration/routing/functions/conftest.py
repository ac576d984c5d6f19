"""A desk for each test."""

from collections.abc import AsyncIterator

import pytest_asyncio

from libs.common.redis.shared_connection import SharedConnection, connect
from tests.integration.routing.functions.desk import Desk


@pytest_asyncio.fixture
async def desk(valkey: str) -> AsyncIterator[Desk]:
    redis = connect(valkey)
    shared = SharedConnection(connect(valkey))
    await shared.open()
    desk = Desk(redis, shared)
    await desk.routing.load_library()
    yield desk
    await shared.close()
    await redis.aclose()
