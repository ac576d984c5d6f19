import asyncio
import contextlib
import os
import signal

import pytest

from libs.common.runtime.lifecycle import end, run_until_signalled, wait_for_stop

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_loops_finish(number: signal.Signals) -> None:
    finished = []

    async def loop(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()
        finished.append(True)

    await run_until_signalled(loop, loop, drain_seconds=5)
    assert finished == [True, True]


async def test_what_does_not_finish_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def stubborn(_: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    await run_until_signalled(stubborn, drain_seconds=0.01)
    assert cancelled.is_set()


async def test_a_loop_that_ends_ends_the_process() -> None:
    drained = []

    async def gone(_: asyncio.Event) -> None:
        return

    async def steady(stop: asyncio.Event) -> None:
        await stop.wait()
        drained.append(True)

    with pytest.raises(SystemExit) as exit_:
        await run_until_signalled(gone, steady, drain_seconds=5)
    assert exit_.value.code == 1
    assert drained == [True]


async def test_a_loop_that_fails_ends_the_process() -> None:
    async def broken(_: asyncio.Event) -> None:
        raise RuntimeError("no")

    with pytest.raises(SystemExit):
        await run_until_signalled(broken, drain_seconds=5)


async def test_failing_during_the_drain_is_failing() -> None:
    async def broken(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        raise RuntimeError("no")

    with pytest.raises(SystemExit):
        await run_until_signalled(broken, drain_seconds=5)


async def test_pausing_ends_with_stop() -> None:
    stop = asyncio.Event()
    assert not await wait_for_stop(stop, 0.001)
    stop.set()
    assert await wait_for_stop(stop, 60)


async def test_a_loop_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    begun = asyncio.Event()

    async def deaf_once() -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async def broken() -> None:
        raise ZeroDivisionError

    tasks = [asyncio.create_task(each()) for each in (deaf_once, deaf_once, broken)]
    await begun.wait()
    await asyncio.wait_for(end(tasks), 60)
    assert [task.cancelled() for task in tasks] == [True, True, False]
    await end([])
