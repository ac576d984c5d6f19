"""The connections to one origin: how many there may be, and who gets which.

Every connection is idle, in use or about to be dialled, and all of them count.
Whoever finds none waits in line, and what becomes free goes to the first in it
at once: while somebody waits nothing is idle and no place is free, so nobody
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
    """`close` ends a connection that the pool gives up; it may call `forget`."""

    def __init__(
        self,
        limit: int,
        idle_s: float,
        close: Callable[[C], None],
        now: Callable[[], float] | None = None,
    ) -> None:
        self._limit = limit
        self._idle_s = idle_s
        self._close = close
        self.loop = asyncio.get_running_loop()
        self._now = now or self.loop.time
        self._all: set[C] = set()
        self._idle: dict[C, float] = {}  # since when; the last used at the end
        self._dialled = 0
        self._waiting: OrderedDict[Waiter[C], None] = OrderedDict()

    @property
    def size(self) -> int:
        """Connections, those about to be dialled included."""
        return len(self._all) + self._dialled

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def all(self) -> list[C]:
        """Those that are open, idle or not, to be gone through while they end."""
        return list(self._all)

    def take_idle(self) -> C | None:
        """The idle connection that was used last: the others may then age."""
        if not self._idle:
            return None
        connection, since = self._idle.popitem()
        if self._now() - since < self._idle_s:
            return connection
        self._idle[connection] = since
        self.drop_idle()  # the youngest is too old
        return None

    async def take(self, deadline: float) -> C | None:
        """An idle connection, or None: the caller may dial one and owes `opened`
        or `given_up`. Waits its turn until `deadline`, which is loop time; raises
        `NoFreeConnection` then."""
        connection = self.take_idle()
        if connection is not None:
            return connection
        if self.size < self._limit:
            self._dialled += 1
            return None
        return await self._turn(deadline)

    def opened(self, connection: C) -> None:
        """It was dialled, and is in use."""
        self._dialled -= 1
        self._all.add(connection)

    def given_up(self) -> None:
        """It could not be dialled."""
        self._dialled -= 1
        self._offer_place()

    def put_back(self, connection: C) -> None:
        """It serves whoever comes next."""
        if connection not in self._all or self._hand_over(connection):
            return
        now = self._now()
        self._idle[connection] = now
        self._expire(now)

    def forget(self, connection: C) -> None:
        """It ended, whatever it was doing. Saying so twice does no harm."""
        if connection in self._all:
            self._all.discard(connection)
            self._idle.pop(connection, None)
            self._offer_place()

    def drop_idle(self) -> None:
        """Close what nobody uses."""
        for connection in list(self._idle):
            self._drop(connection)

    def close(self) -> None:
        """Close all there are; whoever waits is told."""
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
        """Its turn may have come just before it was cancelled."""
        if waiter.cancelled() or waiter.exception() is not None:
            return
        connection = waiter.result()
        if connection is None:
            self.given_up()
        else:
            self.put_back(connection)

    def _offer_place(self) -> None:
        if self._hand_over(None):
            self._dialled += 1

    def _hand_over(self, granted: C | None) -> bool:
        """Give to the first in line, if there is one."""
        while self._waiting:
            waiter, _ = self._waiting.popitem(last=False)
            if not waiter.done():
                waiter.set_result(granted)
                return True
        return False

    def _expire(self, now: float) -> None:
        # One at a time: each that comes back ends one that is too old.
        oldest, since = next(iter(self._idle.items()))
        if now - since >= self._idle_s:
            self._drop(oldest)

    def _drop(self, connection: C) -> None:
        self.forget(connection)
        self._close(connection)


def _too_late(waiter: Waiter[C]) -> None:
    if not waiter.done():
        waiter.set_exception(NoFreeConnection())
