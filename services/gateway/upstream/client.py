"""Sends requests to upstreams over pooled connections, with TLS and through proxies.

The data plane has its own client on httptools, since forwarding with httpx costs about
20 times as much."""

import asyncio
from typing import cast

from services.gateway.upstream.connection import (
    NO_TIMEOUTS,
    Timeouts,
    UpstreamConnection,
)
from services.gateway.upstream.connector import Dialer
from services.gateway.upstream.errors import (
    Broken,
    Interrupted,
    NoKey,
    NotSent,
    Slow,
    TimedOut,
    UpstreamError,
)
from services.gateway.upstream.origin import Origin
from services.gateway.upstream.pool import Pool
from services.gateway.upstream.response import Answer, Sink
from services.gateway.upstream.tunnel import forwarded_head

__all__ = ["Answer", "Broken", "Interrupted", "NoKey", "NotSent", "Origin", "Sink",
           "Slow", "TimedOut", "Timeouts", "UpstreamClient",
           "UpstreamError"]  # fmt: skip

IDLE_SECONDS = 55.0  # below the keep-alive of common servers (nginx: 75 s)
MOST_CONNECTIONS = 10_000


class _Route:
    """How to reach one origin: its pool of connections, and the dialing of new ones."""

    def __init__(self, origin: Origin, dialer: Dialer, limit: int) -> None:
        self._origin = origin
        self._dialer = dialer
        self._forwarder = dialer.forwarder(origin)
        self.pool: Pool[UpstreamConnection] = Pool(
            limit, IDLE_SECONDS, UpstreamConnection.abort
        )
        self.forwards = self._forwarder is not None  # a proxy forwards the requests

    def forwarded(self, head: bytes) -> bytes:
        """A request's head as the proxy wants it."""
        assert self._forwarder is not None
        return forwarded_head(head, self._forwarder, self._origin)

    async def connection(self, deadline: float, connect_s: float) -> UpstreamConnection:
        """A new connection, or the first to become free."""
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
        if transport.is_closing():  # the pool would not learn of its end
            raise NotSent("it closed the connection")
        return cast(UpstreamConnection, made)


class UpstreamClient:
    """Sends requests to any origin. `close` it when done."""

    def __init__(
        self,
        connect_timeout_s: float,
        timeouts: Timeouts = NO_TIMEOUTS,
        dialer: Dialer | None = None,
        limit: int = MOST_CONNECTIONS,
    ) -> None:
        """`limit` is the number of connections to each origin."""
        self._connect_timeout_s = connect_timeout_s
        self._timeouts = timeouts
        self._dialer = dialer or Dialer()
        self._limit = limit
        self._routes: dict[Origin, _Route] = {}

    async def send(
        self,
        origin: Origin,
        head: bytes,
        body: bytes,
        deadline: float,
        *,
        bodiless: bool,
    ) -> Answer:
        """Send a request and return when the head of its response arrived.
        `deadline` is loop time, for the whole response; `bodiless` says that it has
        no body (HEAD).

        Raises `NotSent`, `Broken`, `Slow` or `TimedOut`.
        """
        route = self._routes.get(origin) or self._new_route(origin)
        connection = route.pool.take_idle()
        if connection is None:
            connection = await route.connection(deadline, self._connect_timeout_s)
        if route.forwards:
            head = route.forwarded(head)
        asked = connection.send(head, body, deadline, self._timeouts, bodiless=bodiless)
        try:
            return await asked
        except asyncio.CancelledError:
            connection.withdraw(asked)
            raise
        except Broken as broken:
            if broken.reused:
                # The upstream rarely closes one idle connection alone.
                route.pool.drop_idle()
            raise

    def check(self, now: float) -> None:
        """End requests that take too long; `now` is the loop's time. The server calls
        this periodically: a timer for each request would cost more."""
        for route in list(self._routes.values()):
            for connection in route.pool.all():
                connection.check(now)

    @property
    def open(self) -> int:
        """Connections, idle or not."""
        return sum(route.pool.size for route in self._routes.values())

    def close(self) -> None:
        for route in self._routes.values():
            route.pool.close()

    def _new_route(self, origin: Origin) -> _Route:
        route = self._routes[origin] = _Route(origin, self._dialer, self._limit)
        return route
