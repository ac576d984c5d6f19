"""Runs the background loops of a process: signals, drain, exit code.

A loop that ends on its own ends the process. The supervisor restarts it, which is
better than a process with a part missing."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import structlog

CANCEL_AGAIN_S = 0.1

Loop = Callable[[asyncio.Event], Awaitable[None]]

log = structlog.get_logger()


def process_name() -> str:
    """A name that no other process has, on any host."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


async def run_until_signalled(*loops: Loop, drain_seconds: float) -> None:
    """Run `loops` until SIGTERM or SIGINT sets their event, then give them
    `drain_seconds` to finish, and cancel those that still run.

    Raises SystemExit(1) if a loop ends before a signal arrives.
    """
    stop = asyncio.Event()
    with _Signals(stop):
        tasks = [asyncio.ensure_future(loop(stop)) for loop in loops]
        asked = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({asked, *tasks}, return_when=asyncio.FIRST_COMPLETED)
            # Read before `stop` is set for the other loops.
            failed = not stop.is_set()
            stop.set()
            await asyncio.wait(tasks, timeout=drain_seconds)
        finally:
            await end([asked, *tasks])
    if _log_failures(tasks) or failed:
        log.error("a background loop ended unexpectedly", action="loop_ended")
        raise SystemExit(1)


async def end(tasks: Collection["asyncio.Future[Any]"]) -> None:
    """Cancel `tasks` and wait until all have ended.

    Repeats the cancellation: in Python 3.11, `asyncio.wait_for` swallows a cancellation
    that arrives as its work ends, and redis-py uses it for each command.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


async def wait_for_stop(stop: asyncio.Event, seconds: float) -> bool:
    """Wait up to `seconds` for `stop`. Return whether it is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True


def _log_failures(tasks: Sequence[asyncio.Future[None]]) -> bool:
    """Log the exceptions of the loops. Return whether there are any."""
    errors = [t.exception() for t in tasks if not t.cancelled()]
    for error in filter(None, errors):
        log.error("a background loop failed", action="loop_failed", exc_info=error)
    return any(errors)


class _Signals:
    """Sets `stop` on SIGTERM or SIGINT while the context is active."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.remove_signal_handler(number)
