"""Connections to upstreams: kept alive, in bounded pools, by TLS and proxies.

hotpath.md has the measurements: a protocol on httptools forwards at a
twentieth of httpx's cost, which is why the data plane has a client of its own.
"""

import asyncio
from typing import cast

from services.gateway.upstream.connection import (
    NO_PATIENCE,
    Patience,
    UpstreamConnection,
)
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.errors import NotSent, Origin, UpstreamError
from services.gateway.upstream.pool import Pool
from services.gateway.upstream.response import (
    Answer,
    Broken,
    Interrupted,
    NoKey,
    Sink,
    Slow,
    TimedOut,
)
from services.gateway.upstream.tunnel import forwarded_head

__all__ = ["Answer", "Broken", "Interrupted", "NoKey", "NotSent", "Origin", "Patience",
           "Sink", "Slow", "TimedOut", "UpstreamClient", "UpstreamError"]  # fmt: skip

IDLE_SECONDS = 55.0  # below the keep-alive of common servers (nginx: 75 s)
MOST_CONNECTIONS = 10_000


class _Way:
    """To one origin: its connections, and how new ones are made."""

    def __init__(self, origin: Origin, dialer: Dialer, limit: int) -> None:
        self._origin = origin
        self._dialer = dialer
        self._forwarder = dialer.forwarder(origin)
        self.pool: Pool[UpstreamConnection] = Pool(
            limit, IDLE_SECONDS, UpstreamConnection.abort
        )

    def addressed(self, head: bytes) -> bytes:
        """A request's head as the next hop wants it."""
        if self._forwarder is None:
            return head
        return forwarded_head(head, self._forwarder, self._origin)

    async def connection(self, deadline: float, connect_s: float) -> UpstreamConnection:
        """When none is idle: the next that is, or a new one."""
        connection = await self.pool.take(deadline)
        if connection is not None:
            return connection
        left = deadline - self.pool.loop.time()
        try:
            connection = await self._dial(min(connect_s, max(left, 0)))
        except BaseException:
            self.pool.given_up()
            raise
        self.pool.opened(connection)
        return connection

    async def _dial(self, timeout_s: float) -> UpstreamConnection:
        transport, made = await self._dialer.dial(
            self._origin, lambda: UpstreamConnection(self.pool), timeout_s
        )
        if transport.is_closing():  # the pool would never hear of its end
            raise NotSent("it closed the connection")
        return cast(UpstreamConnection, made)


class UpstreamClient:
    """Sends requests to any origin. Close it when done."""

    def __init__(
        self,
        connect_timeout_s: float,
        patience: Patience = NO_PATIENCE,
        dialer: Dialer | None = None,
        limit: int = MOST_CONNECTIONS,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._patience = patience
        self._dialer = dialer or Dialer()
        self._limit = limit
        self._ways: dict[Origin, _Way] = {}

    async def send(
        self,
        origin: Origin,
        head: bytes,
        body: bytes,
        deadline: float,
        *,
        bodiless: bool,
    ) -> Answer:
        """Send a request and return its answer's head. `deadline` is loop time
        for the whole of it; `bodiless` says that the answer has no body (HEAD).

        Raises `NotSent`, `Broken`, `Slow` or `TimedOut`.
        """
        way = self._way(origin)
        connection = way.pool.take_idle()
        if connection is None:
            connection = await way.connection(deadline, self._connect_timeout_s)
        head = way.addressed(head)
        asked = connection.send(head, body, deadline, self._patience, bodiless=bodiless)
        try:
            return await asked
        except asyncio.CancelledError:
            connection.withdraw(asked)
            raise
        except Broken as broken:
            if broken.reused:
                way.pool.drop_idle()  # one closed for idleness is rarely alone
            raise

    def check(self, now: float) -> None:
        """End requests whose time is up; `now` is the loop's time. Deadlines are
        looked at from time to time, by whoever calls this: a timer for each request
        would cost more."""
        for way in list(self._ways.values()):
            for connection in way.pool.all():
                connection.check(now)

    @property
    def open(self) -> int:
        """Connections, idle or not."""
        return sum(way.pool.size for way in self._ways.values())

    def close(self) -> None:
        for way in self._ways.values():
            way.pool.close()

    def _way(self, origin: Origin) -> _Way:
        way = self._ways.get(origin)
        if way is None:
            way = self._ways[origin] = _Way(origin, self._dialer, self._limit)
        return way
