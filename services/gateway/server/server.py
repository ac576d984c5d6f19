"""The gateway's server: where clients connect, who serves what they ask, and how
it all ends when the gateway is told to go."""

import asyncio
import socket
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import structlog

from libs.common.headers import Header
from services.gateway import metrics
from services.gateway.auth.browser_guard import BrowserGuard
from services.gateway.server.body_memory import SMALL, Room
from services.gateway.server.connection import Connection, Times
from services.gateway.server.request import Request

log = structlog.get_logger()

SWEEP_S = 0.1  # between two looks at deadlines
LOOK_EVERY = 10  # sweeps between two looks at connections
# Of a connection kept alive, before it is closed at the end: its client may be
# about to send, and would have to guess whether that was served.
GRACE_S = 0.5
QUEUE = 4096  # connections not accepted yet
# Connections beyond the limit that are told so at the same time; further ones are
# closed without a word.
MOST_REFUSED = 256
LOOKED_AT = 256  # connections among which an idle one is looked for


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much clients may take."""

    connections: int
    body: int  # bytes of one
    room: Room  # for all large ones


class Plane(Protocol):
    """Serves requests; the connection's `over` is called at the end of each."""

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]: ...


class Deadlines(Protocol):
    """Ends what takes too long: one look at all costs less than a timer for each."""

    def check(self, now: float) -> None: ...


class Sockets(Protocol):
    """Serves WebSockets."""

    def serve(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> Coroutine[Any, Any, None]: ...


class Server:
    """Accepts connections and knows them all."""

    def __init__(
        self,
        plane: Plane,
        control: Plane,
        sockets: Sockets,
        browser_guard: BrowserGuard,
        *,
        bounds: Bounds,
        times: Times,
    ) -> None:
        """`plane` serves what is below /v1, `control` all the rest."""
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
        self.times = times
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

    # What connections ask ----------------------------------------------------

    def admit(self, connection: Connection) -> bool:
        """Take a new connection in. When there are too many, one that is idle has
        to go; if there is none, the new one."""
        surplus = self.open - self._most
        if surplus >= MOST_REFUSED:
            connection.abort()
            return True
        self._connections.add(connection)  # also to see it leave
        if surplus < 0:
            return True
        some = islice(self._connections, LOOKED_AT)
        idle = next((c for c in some if c.idle and c != connection), None)
        if idle is not None:
            idle.hang_up()
        return idle is not None

    @property
    def open(self) -> int:
        """Connections of clients, those of sockets among them."""
        return len(self._connections) + len(self._upgraded)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        plane = self._control
        if request.path.startswith(b"/v1/"):
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

    # The end -----------------------------------------------------------------

    async def refuse_new(self) -> None:
        """Accept no more connections; those that are open serve what is under way."""
        self.draining = True
        if self._listening is None or self._socket is None:
            return
        waiting = list(_waiting(self._socket))
        self._listening.close()
        loop = asyncio.get_running_loop()
        for sock in waiting:
            await loop.connect_accepted_socket(lambda: Connection(self, loop), sock)

    async def drain(self, within_s: float) -> bool:
        """Wait for what is under way. Did it all end?"""
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
        """Break off whatever is left."""
        for connection in list(self._connections):
            connection.abort()
        for task in list(self._upgraded):
            task.cancel()
        if self._sweeping is not None:
            self._sweeping.cancel()
        await asyncio.sleep(0)  # what was cut is told


def _waiting(listening: socket.socket) -> Iterator[socket.socket]:
    """Connections that are made, and not accepted yet: closing the socket they wait
    at would reset them, although their clients may have sent a request."""
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
    metrics.count_refused(problem.ledger_code)
    headers = [(b"content-type", b"application/json"), *problem.headers]
    connection.send_whole(problem.status, headers, problem.body())
    connection.over()


async def _allow(headers: list[Header], connection: Connection) -> None:
    connection.send_whole(204, headers, b"")
    connection.over()
