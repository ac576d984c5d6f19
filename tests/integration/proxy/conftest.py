"""Clients of a gateway process."""

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio
from openai import AsyncOpenAI

from tests.support.processes.stack import Stack


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def openai(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=stack.url, api_key="client", max_retries=0
    ) as client:
        yield client
