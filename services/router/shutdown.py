"""When the worker was asked to stop: Granian waits for streams to end before
it tells the application, so streams must learn of the signal by themselves."""

import asyncio
import os
import signal


def stopping_at_signal() -> asyncio.Event:
    """Set once SIGTERM arrives. Granian handles SIGINT in the same way as
    SIGTERM, whose handler is replaced here: it gets the one for the other."""
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        os.kill(os.getpid(), signal.SIGINT)

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    return stopping
