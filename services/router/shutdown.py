"""Notices the stop signal, and ends the process when it cannot go on. Granian waits for
streams to end before it runs the application's shutdown, so streams must be told of the
signal directly."""

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


def stopping_at_signal() -> asyncio.Event:
    """An event that SIGTERM sets. This replaces Granian's handler of SIGTERM, so the
    signal is passed on as SIGINT, which Granian handles the same way."""
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        os.kill(os.getpid(), signal.SIGINT)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    return stopping


def kept(loop: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """A background loop of the process."""
    task = asyncio.create_task(loop)
    task.add_done_callback(die_with)
    return task


def die_with(task: "asyncio.Task[None]") -> None:
    """A background loop that ends also ends the process; supervisor restarts it."""
    log.error(
        "background loop ended", action="loop_ended", cause=repr(task.exception())
    )
    os.kill(os.getpid(), signal.SIGTERM)
