"""Notices the stop signal. Granian waits for streams to end before it runs the
application's shutdown, so streams must be told of the signal directly."""

import asyncio
import os
import signal


def stopping_at_signal() -> asyncio.Event:
    """An event that SIGTERM sets. This replaces Granian's handler of SIGTERM, so the
    signal is passed on as SIGINT, which Granian handles the same way."""
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        os.kill(os.getpid(), signal.SIGINT)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    return stopping
