"""An event loop with virtual time: its clock stands still while anything is ready to
run, and jumps to the next timer otherwise. Timeouts are tested to the second and take
no time."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, cast

P = ParamSpec("P")
TURNS = 12  # of the loop; more than any chain of callbacks under test needs


class JumpingLoop(asyncio.SelectorEventLoop):
    """Threads may be waited for only while no timer is set."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Selector(self._jump))

    def time(self) -> float:
        return self.now

    def _jump(self, seconds: float) -> None:
        self.now += seconds

    def advance(self, seconds: float) -> None:
        """Advance the clock before the loop's next turn."""
        self.now += seconds

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - as the base class has it
    ) -> None:
        """Without the bound that Python 3.12 and later give: the clock would jump to
        it."""
        await super().shutdown_default_executor()


class _Selector(selectors.DefaultSelector):
    def __init__(self, jump: Callable[[float], None]) -> None:
        super().__init__()
        self._pass = jump

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self._pass(timeout)
        return ready


def timeless(
    test: Callable[P, Coroutine[Any, Any, None]],
) -> Callable[P, None]:
    """Run an async test on a `JumpingLoop`."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def clock() -> JumpingLoop:
    """The running loop of a `timeless` test."""
    return cast(JumpingLoop, asyncio.get_running_loop())


async def settled() -> None:
    """Run everything that can run without the clock advancing."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
