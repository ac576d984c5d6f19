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


class Route:
    """How to reach one origin: its pool of connections, and the dialing of new ones.

    A request takes a connection, `idle` or else a `free` one, sends, and awaits the
    head of its response. Whoever awaits it calls `unanswered` if that raises. (No
    coroutine does all that, because each costs at each await.)"""

    def __init__(
        self,
        origin: Origin,
        dialer: Dialer,
        limit: int,
        connect_s: float,
        timeouts: Timeouts,
    ) -> None:
        self._origin = origin
        self._dialer = dialer
        self._connect_s, self._timeouts = connect_s, timeouts
        self._forwarder = dialer.forwarder(origin)
        self.pool: Pool[UpstreamConnection] = Pool(
            limit, IDLE_SECONDS, UpstreamConnection.abort
        )

    def idle(self) -> UpstreamConnection | None:
        """An idle connection."""
        return self.pool.take_idle()

    def send(
        self,
        connection: UpstreamConnection,
        head: bytes,
        body: bytes,
        deadline: float,
        *,
        bodiless: bool,
    ) -> "asyncio.Future[Answer]":
        """Send a request. `deadline` is loop time, for the whole response; `bodiless`
        says that it has no body (HEAD). The future raises `Broken`, `Slow` or
        `TimedOut`."""
        if self._forwarder is not None:  # the proxy wants another head
            head = forwarded_head(head, self._forwarder, self._origin)
        return connection.send(head, body, deadline, self._timeouts, bodiless=bodiless)

    def unanswered(
        self,
        connection: UpstreamConnection,
        asked: "asyncio.Future[Answer]",
        error: BaseException,
    ) -> None:
        """Awaiting the head of a response raised `error`."""
        if isinstance(error, asyncio.CancelledError):
            connection.withdraw(asked)
        elif isinstance(error, Broken) and error.reused:
            # The upstream rarely closes one idle connection alone.
            self.pool.drop_idle()

    async def free(self, deadline: float) -> UpstreamConnection:
        """A new connection, or the first to become free. Raises `NotSent`."""
        connection = await self.pool.take(deadline)
        if connection is not None:
            return connection
        left = deadline - self.pool.loop.time()
        try:
            connection = await self._dial(min(self._connect_s, max(left, 0)))
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
        self._routes: dict[Origin, Route] = {}

    def route(self, origin: Origin) -> Route:
        """How to reach `origin`."""
        route = self._routes.get(origin)
        if route is None:
            route = self._routes[origin] = Route(
                origin,
                self._dialer,
                self._limit,
                self._connect_timeout_s,
                self._timeouts,
            )
        return route

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
