"""The routing functions that each request calls.

`RoutingFunctions` names this as its base: so compiled code calls it directly."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from libs.common.routing.types import Ask, Decision, Release


class HotCalls(Protocol):
    """Described in `functions.py`."""

    def acquire(self, ask: Ask) -> Awaitable[Decision]: ...

    def report(self, release: Release, failed: Callable[[], None]) -> None: ...
