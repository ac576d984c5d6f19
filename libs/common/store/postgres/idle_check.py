"""Checks pooled connections before their use, because a server that restarted has
closed them."""

import time
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

# Twice in this time no connection is checked: ingest would spend a tenth of its
# statements on it. A server takes longer to restart.
CHECK_EVERY_S = 1.0


class IdleCheck:
    """The `check` of a connection pool."""

    def __init__(
        self,
        check: Callable[[Any], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`check` raises if the server does not answer."""
        self._check = check
        self._clock = clock
        self._answered: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    async def __call__(self, connection: Any) -> None:
        now = self._clock()
        if now - self._answered.get(connection, 0.0) >= CHECK_EVERY_S:
            await self._check(connection)
            self._answered[connection] = now
