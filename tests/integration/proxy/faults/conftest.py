"""One gateway for each module, and an upstream for each test."""

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from tests.integration.proxy.faults.scene import Setup
from tests.support.processes.stack import KEYS, Stack
from tests.support.upstreams.simulator import Simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def setup(
    standing: Stack, http: httpx.AsyncClient, valkey: str
) -> AsyncIterator[Setup]:
    async with Simulator(KEYS) as upstream:
        yield Setup(standing, upstream, http)
