"""Streams end when the worker stops, before Granian waits for them."""

import asyncio
import os
import signal

import pytest

from services.router.shutdown import kept, stopping_at_signal


@pytest.mark.asyncio
async def test_sigterm_is_told_and_handed_on_as_sigint() -> None:
    handed_on = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, handed_on.set)
    try:
        stopping = stopping_at_signal()
        assert not stopping.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(handed_on.wait(), 60)
        assert stopping.is_set()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@pytest.mark.asyncio
async def test_a_loop_that_ends_ends_the_process() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    async def gone() -> None:
        raise ZeroDivisionError

    try:
        task = kept(gone())
        await asyncio.wait_for(ended.wait(), 60)
        with pytest.raises(ZeroDivisionError):
            await task
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
