"""The connections to one origin: how many there may be, and who gets which.

Each connection is idle, in use or about to be dialed, and all of them count against the
limit. A request that finds none waits in line. What becomes free goes to the first in
line at once: while one waits no connection is idle and no place is free, so none
overtakes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from services.gateway.upstream.errors import NoFreeConnection

C = TypeVar("C")
Waiter = asyncio.Future[C | None]


class Pool(Generic[C]):
    """`close` ends a connection that the pool drops; it may call `forget`."""

    def __init__(
        self,
        limit: int,
        idle_s: float,
        close: Callable[[C], None],
        now: Callable[[], float] | None = None,
    ) -> None:
        """At most `limit` connections; one that is idle for `idle_s` seconds ends."""
        self._limit = limit
        self._idle_s = idle_s
        self._close = close
        self.loop = asyncio.get_running_loop()
        self._now = now or self.loop.time
        self._all: set[C] = set()
        self._idle: dict[C, float] = {}  # and since when; the last used is the last
        self._pop_idle: Callable[[], tuple[C, float]] = self._idle.popitem
        self._dialed = 0  # about to be dialed
        self._waiting: OrderedDict[Waiter[C], None] = OrderedDict()

    @property
    def size(self) -> int:
        """Connections, including those about to be dialed."""
        return len(self._all) + self._dialed

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return len(self._waiting)

    def all(self) -> list[C]:
        """A copy: connections may end while the caller goes through it."""
        return list(self._all)

    def take_idle(self) -> C | None:
        """The idle connection that was used last, so that the others may age."""
        if not self._idle:
            return None
        connection, since = self._pop_idle()
        if self._now() - since < self._idle_s:
            return connection
        self._idle[connection] = since
        self.drop_idle()  # the youngest is too old
        return None

    async def take(self, deadline: float) -> C | None:
        """An idle connection, or None: then the caller may dial one, and must call
        `opened` or `given_up`. Waits in line until `deadline`, which is loop time, and
        raises `NoFreeConnection` then."""
        connection = self.take_idle()
        if connection is not None:
            return connection
        if self.size < self._limit:
            self._dialed += 1
            return None
        return await self._turn(deadline)

    def opened(self, connection: C) -> None:
        """It was dialed, and is in use."""
        self._dialed -= 1
        self._all.add(connection)

    def given_up(self) -> None:
        """It could not be dialed."""
        self._dialed -= 1
        self._offer_place()

    def put_back(self, connection: C, now: float | None = None) -> None:
        """It is free for the next request. `now`: the time, if it is known."""
        if connection not in self._all:
            return
        if self._waiting and self._hand_over(connection):
            return
        idle = self._idle
        if now is None:
            now = self._now()
        idle[connection] = now
        # One at a time: each that comes back ends one that is too old.
        for oldest in idle:
            if now - idle[oldest] >= self._idle_s:
                self._drop(oldest)
            break

    def forget(self, connection: C) -> None:
        """It ended. May be called again."""
        if connection in self._all:
            self._all.discard(connection)
            self._idle.pop(connection, None)
            self._offer_place()

    def drop_idle(self) -> None:
        """Close all idle connections."""
        for connection in list(self._idle):
            self._drop(connection)

    def close(self) -> None:
        """Close all connections. Requests in line fail."""
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            _too_late(waiter)
        for connection in list(self._all):
            self._drop(connection)

    async def _turn(self, deadline: float) -> C | None:
        waiter: Waiter[C] = self.loop.create_future()
        self._waiting[waiter] = None
        timer = self.loop.call_at(deadline, _too_late, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._return_to_line(waiter)
            raise
        finally:
            timer.cancel()
            self._waiting.pop(waiter, None)

    def _return_to_line(self, waiter: Waiter[C]) -> None:
        """It may have been given a connection just before it was canceled."""
        if waiter.cancelled() or waiter.exception() is not None:
            return
        connection = waiter.result()
        if connection is None:
            self.given_up()
        else:
            self.put_back(connection)

    def _offer_place(self) -> None:
        if self._hand_over(None):
            self._dialed += 1

    def _hand_over(self, granted: C | None) -> bool:
        """Give a connection, or the right to dial one, to the first in line."""
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(granted)
                return True
        return False

    def _drop(self, connection: C) -> None:
        self.forget(connection)
        self._close(connection)


def _too_late(waiter: Waiter[C]) -> None:
    if not waiter.done():
        waiter.set_exception(NoFreeConnection())
