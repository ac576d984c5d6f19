"""Waits for conditions, with a limit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    check: Callable[[], Awaitable[T]], within_s: float = 60.0, every_s: float = 0.02
) -> T:
    """The first truthy value of `check`; AssertionError after the limit. The limit is
    generous for busy machines: only a failure takes that long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        value = await check()
        if value:
            return value
        if loop.time() > deadline:
            raise AssertionError(f"not within {within_s} s: {value!r}")
        await asyncio.sleep(every_s)
