"""The gateway's server: accepts connections, dispatches requests, and drains on
shutdown."""

import asyncio
import socket
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import structlog

from libs.common.headers import Header
from services.gateway import event_log
from services.gateway.content.headers import JSON_TYPE
from services.gateway.server.body_memory import SMALL, Room
from services.gateway.server.browser_guard import BrowserGuard
from services.gateway.server.connection import ClientTimeouts, Connection, Site
from services.gateway.server.request import Request

log = structlog.get_logger()

SWEEP_S = 0.1  # between two checks of deadlines
LOOK_EVERY = 10  # sweeps between two checks of connections
# How long a kept connection must be idle before shutdown closes it: its client may be
# about to send, and could not tell whether that was served.
GRACE_S = 0.5
QUEUE = 4096  # connections that are not accepted yet
# Connections beyond the limit that get a 503 at the same time. Further ones are closed
# without a response.
MOST_REFUSED = 256
LOOKED_AT = 256  # connections that are searched for an idle one


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on what clients use."""

    connections: int
    body: int  # bytes of one body
    room: Room  # for all large bodies


class Plane(Protocol):
    """Serves requests. Calls the connection's `over` at the end of each. A class that
    names this as its base is called directly."""

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]: ...


class Deadlines(Protocol):
    """Ends what takes too long. One check of all requests costs less than a timer for
    each."""

    def check(self, now: float) -> None: ...


class Sockets(Protocol):
    """Serves WebSockets."""

    def serve(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> Coroutine[Any, Any, None]: ...


class Server(Site):
    """Accepts connections, and dispatches their requests."""

    def __init__(
        self,
        plane: Plane,
        control: Plane,
        sockets: Sockets,
        browser_guard: BrowserGuard,
        *,
        bounds: Bounds,
        timeouts: ClientTimeouts,
    ) -> None:
        """`plane` serves paths below /v1, `control` all others."""
        self._plane = plane
        self._control = control
        self._sockets = sockets
        self._browser_guard = browser_guard
        self._most = bounds.connections
        self._connections: set[Connection] = set()
        self._upgraded: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self.largest_body = bounds.body
        self.small_body = min(SMALL, bounds.body)
        self.room = bounds.room
        self.timeouts = timeouts
        self.draining = False

    async def listen(self, sock: socket.socket, *deadlines: Deadlines) -> None:
        """Begin to serve."""
        loop = asyncio.get_running_loop()
        self._socket = sock
        self._listening = await loop.create_server(
            lambda: Connection(self, loop), sock=sock, backlog=QUEUE
        )
        self._sweeping = asyncio.create_task(self._sweep(deadlines))

    async def _sweep(self, deadlines: tuple[Deadlines, ...]) -> None:
        loop, looks = asyncio.get_running_loop(), 0
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            for each in deadlines:
                each.check(now)
            looks += 1
            if looks % LOOK_EVERY == 0:
                for connection in list(self._connections):
                    connection.check(now)

    # Site, for connections -----------------------------------------------------

    def admit(self, connection: Connection) -> bool:
        """Register a new connection. When there are too many, close an idle one;
        without an idle one return False: the new one is refused."""
        surplus = self.open - self._most
        if surplus >= MOST_REFUSED:
            connection.abort()
            return True
        self._connections.add(connection)  # refused ones too, until they end
        if surplus < 0:
            return True
        some = islice(self._connections, LOOKED_AT)
        idle = next((c for c in some if c.idle and c != connection), None)
        if idle is not None:
            idle.hang_up()
        return idle is not None

    @property
    def open(self) -> int:
        """Connections of clients, including WebSockets."""
        return len(self._connections) + len(self._upgraded)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        plane = self._control
        if request.path[:4] == b"/v1/":  # startswith() takes twice as long
            plane = self._plane
            self._browser_guard.api(request)
        if request.problem is not None:
            return _refuse(request, connection)
        if request.cors:
            allowed = self._browser_guard.preflight(request)
            if allowed is not None:
                return _allow(allowed, connection)
        return plane.serve(request, connection)

    def upgrade(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None:
        self._browser_guard.api(request)
        task = asyncio.create_task(self._sockets.serve(request, transport, rest))
        self._upgraded.add(task)
        task.add_done_callback(self._upgraded.discard)

    # Shutdown ----------------------------------------------------------------

    async def refuse_new(self) -> None:
        """Accept no more connections. Open ones finish the requests in progress."""
        self.draining = True
        if self._listening is None or self._socket is None:
            return
        waiting = list(_waiting(self._socket))
        self._listening.close()
        loop = asyncio.get_running_loop()
        for sock in waiting:
            await loop.connect_accepted_socket(lambda: Connection(self, loop), sock)

    async def drain(self, within_s: float) -> bool:
        """Wait for the requests in progress. Returns whether all ended in time."""
        loop = asyncio.get_running_loop()
        began = now = loop.time()
        while self._connections and now < began + within_s:
            for connection in list(self._connections):
                if connection.idle and now - max(connection.since, began) >= GRACE_S:
                    connection.hang_up()
            await asyncio.sleep(0.02)
            now = loop.time()
        return not self._connections

    async def stop(self) -> None:
        """Abort what is left."""
        for connection in list(self._connections):
            connection.abort()
        for task in list(self._upgraded):
            task.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await asyncio.sleep(0)  # lets protocols learn that they were aborted


def _waiting(listening: socket.socket) -> Iterator[socket.socket]:
    """Accept the connections in the socket's queue. Closing the socket would reset
    them, although their clients may have sent a request."""
    with suppress(BlockingIOError):
        while True:
            try:
                sock, _ = listening.accept()
            except ConnectionAbortedError:
                continue
            sock.setblocking(False)
            yield sock


async def _refuse(request: Request, connection: Connection) -> None:
    problem = request.problem
    assert problem is not None
    event_log.refused(problem.ledger_code, problem.status)
    headers = [JSON_TYPE, *problem.headers]
    connection.writer.send_whole(problem.status, headers, problem.body())
    connection.over()


async def _allow(headers: list[Header], connection: Connection) -> None:
    connection.writer.send_whole(204, headers, b"")
    connection.over()
