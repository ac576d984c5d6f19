"""Checks pooled connections before their use, because a server that restarted has
closed them."""

import select
import time
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

# A connection that answered within this time is not asked again unless its server sent
# something since: ingest would spend a tenth of its calls on it.
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
        recent = now - self._answered.get(connection, 0.0) < CHECK_EVERY_S
        if not (recent and _silent(connection.fileno())):
            await self._check(connection)
            self._answered[connection] = now


def _silent(socket: int) -> bool:
    """Whether there is nothing to read, not even the end of the connection."""
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return not poll.poll(0)
