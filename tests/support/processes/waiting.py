"""Waiting for a condition, with a bound; never for a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    check: Callable[[], Awaitable[T]], within_s: float = 20.0, every_s: float = 0.02
) -> T:
    """The first truthy value of `check`; AssertionError when the time is over. The
    time is for a machine that has other work, too: a failure alone takes it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        value = await check()
        if value:
            return value
        if loop.time() > deadline:
            raise AssertionError(f"not within {within_s} s: {value!r}")
        await asyncio.sleep(every_s)
