"""Fixtures: the simulated upstream in this process, and clients with three of its keys.
A test module that uses them names this one in `pytest_plugins`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest_asyncio
from openai import AsyncOpenAI

from libs.simulator.server import RunningSimulator
from tests.support.upstreams.simulated import bearer
from tests.support.upstreams.simulator import Simulator

KEYS = {"sk-a1": "acct-a", "sk-a2": "acct-a", "sk-b1": "acct-b"}


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with Simulator(KEYS) as running:
        yield running


@pytest_asyncio.fixture
async def http(simulator: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    origin = simulator.base_url.removesuffix("/v1")
    async with httpx.AsyncClient(base_url=origin, headers=bearer("sk-a1")) as client:
        yield client


@asynccontextmanager
async def client(
    simulator: RunningSimulator, key: str = "sk-a1"
) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        api_key=key, base_url=simulator.base_url, max_retries=0
    ) as opened:
        yield opened


@pytest_asyncio.fixture
async def a1(simulator: RunningSimulator) -> AsyncIterator[AsyncOpenAI]:
    async with client(simulator) as opened:
        yield opened


@pytest_asyncio.fixture
async def a2(simulator: RunningSimulator) -> AsyncIterator[AsyncOpenAI]:
    """Another key of the same account."""
    async with client(simulator, "sk-a2") as opened:
        yield opened


@pytest_asyncio.fixture
async def b1(simulator: RunningSimulator) -> AsyncIterator[AsyncOpenAI]:
    """A key of another account."""
    async with client(simulator, "sk-b1") as opened:
        yield opened
