"""Ends child processes."""

import asyncio
from asyncio.subprocess import Process

KILL_MARGIN_S = 3.0  # beyond the drain time


async def ended(process: Process, drain_s: float) -> int:
    """Terminate a process that may run, and kill it when it takes too long; returns its
    code."""
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(drain_s + KILL_MARGIN_S):
            return await process.wait()
    except TimeoutError:
        process.kill()
        return await process.wait()


def exit_code(code: int) -> int:
    """The code as a shell gives it: 128 and the number of a signal."""
    return code if code >= 0 else 128 - code
