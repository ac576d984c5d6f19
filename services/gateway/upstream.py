"""Connections to upstreams: keep-alive, TLS, back-pressure, one request at a
time each. Knows HTTP/1.1, not what it carries.

hotpath.md has the measurements: a protocol on httptools forwards at a
twentieth of httpx's cost, which is why the data plane has a client of its own.
"""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import httptools

from libs.common.errors import ProxyError

Header = tuple[bytes, bytes]

IDLE_SECONDS = 55.0  # below the keep-alive of common servers (nginx: 75 s)
HIGH_WATER = 262_144  # bytes held for a slow reader before the socket rests
LOW_WATER = 65_536
LARGEST_HEAD = 65_536


class UpstreamError(ProxyError):
    """The upstream gave no usable answer."""


class NotSent(UpstreamError):
    """No connection: nothing was sent, so it may go anywhere."""


class Broken(UpstreamError):
    """The connection ended, or spoke no HTTP, before an answer's head."""

    # A kept connection that had served before: it may just have been closed
    # for idleness, which says nothing of the upstream.
    reused = False


class TimedOut(UpstreamError):
    """The request's time is up."""


class Interrupted(UpstreamError):
    """The answer ended in the middle of its body."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a connection goes."""

    scheme: str
    host: str
    port: int


class Answer:
    """An answer under way: its head, then its body piece by piece.

    `close` gives up what is left; after the body's end it does nothing.
    """

    __slots__ = ("_connection", "headers", "status")

    def __init__(
        self, connection: "_Connection", status: int, headers: list[Header]
    ) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers

    async def next(self) -> bytes:
        """The bytes that arrived since the last call; empty at the end. Raises
        `Interrupted` or `TimedOut`."""
        return await self._connection.next_chunk()

    @property
    def ended(self) -> bool:
        """Nothing will arrive beyond what `next` gives now."""
        return self._connection.ended

    @property
    def waiting(self) -> bool:
        """Are there bytes that `next` gives without waiting?"""
        return self._connection.waiting

    def close(self) -> None:
        self._connection.give_up()


class _Connection(asyncio.Protocol):
    """One socket. A request, its answer, then the next."""

    def __init__(self, pool: "_Pool") -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._head: asyncio.Future[Answer] | None = None
        self._chunk: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._error: UpstreamError | None = None
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._headers: list[Header] = []
        self._head_bytes = 0
        self._resting = False
        self._ended = True
        self._bodiless = False
        self.requests = 0
        self.idle_since = 0.0

    # A request ---------------------------------------------------------------

    def send(
        self, head: bytes, body: bytes, deadline: float, *, bodiless: bool
    ) -> "asyncio.Future[Answer]":
        """Write a request; the future gives the answer's head."""
        assert self._transport is not None
        assert self._ended
        self.requests += 1
        self._parser = httptools.HttpResponseParser(self)
        self._head = self._loop.create_future()
        self._headers = []
        self._head_bytes = 0
        self._error = None
        self._ended = False
        self._bodiless = bodiless
        self._deadline = self._loop.call_at(deadline, self._time_out)
        self._transport.write(head)
        if body:
            self._transport.write(body)
        return self._head

    async def next_chunk(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._chunk = self._loop.create_future()
            try:
                await self._chunk
            finally:
                self._chunk = None
        if len(self._chunks) == 1:
            data = self._chunks.popleft()
        else:
            data = b"".join(self._chunks)
            self._chunks.clear()
        self._held = 0
        if self._resting and self._transport is not None:
            self._resting = False
            self._transport.resume_reading()
        return data

    @property
    def ended(self) -> bool:
        return self._ended and self._error is None

    @property
    def waiting(self) -> bool:
        return bool(self._chunks) or self._ended

    def give_up(self) -> None:
        """Close, unless the answer was read to its end."""
        if not self._ended or self._error is not None:
            self._stop_clock()
            self._ended = True
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            # Bytes that nobody asked for: the connection cannot be trusted.
            self.abort()
            return
        if self._head is not None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("it sent bytes that are no HTTP")
            return
        if self._head is not None and self._head_bytes > LARGEST_HEAD:
            self._fail("its answer's headers never end")

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.forget(self)
        if self._ended:
            return
        if self._head is None and self._ends_with_connection():
            self._finish()
        else:
            self._fail("it closed the connection")

    # httptools ---------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []  # 100 Continue, 103 Early Hints: not the answer
            return
        if self._head is None:
            return  # a second answer to one request; data_received sees to it
        head, self._head = self._head, None
        if not head.done():
            head.set_result(Answer(self, status, self._headers))
        if self._bodiless:
            self._finish()

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._held += len(data)
        if self._held > HIGH_WATER and not self._resting and self._transport:
            self._resting = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._head is None:
            self._finish()

    # Ends --------------------------------------------------------------------

    def _finish(self) -> None:
        if self._ended:
            return
        self._stop_clock()
        self._ended = True
        self._wake()
        reusable = not self._bodiless and self._parser.should_keep_alive()
        if self._transport is None:
            return
        if self._resting:
            self._resting = False
            self._transport.resume_reading()
        if reusable:
            self._pool.put_back(self)
        else:
            self.abort()

    def _fail(self, cause: str) -> None:
        if self._head is None:
            self._fail_with(Interrupted(cause))
            return
        broken = Broken(cause)
        broken.reused = self.requests > 1 and self._head_bytes == 0
        self._fail_with(broken)

    def _time_out(self) -> None:
        self._fail_with(TimedOut("it took too long"))

    def _fail_with(self, error: UpstreamError) -> None:
        self._stop_clock()
        self._error = error
        self._ended = True
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        self._head = None
        self._wake()
        self.abort()

    def _ends_with_connection(self) -> bool:
        """Without a length or chunks a body ends with its connection."""
        framed = (b"content-length", b"transfer-encoding")
        return not any(name in framed for name, _ in self._headers)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _wake(self) -> None:
        if self._chunk is not None and not self._chunk.done():
            self._chunk.set_result(None)


class _Pool:
    """The connections to one origin; the last used is taken first."""

    def __init__(self, origin: Origin, context: ssl.SSLContext | None) -> None:
        self._origin = origin
        self._context = context
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    def take_idle(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def connect(self, timeout_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        origin = self._origin
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self),
                    origin.host,
                    origin.port,
                    ssl=self._context,
                )
        except TimeoutError:
            raise NotSent("connecting took too long") from None
        except ssl.SSLError as error:
            raise NotSent(f"TLS failed: {error.reason}") from error
        except OSError as error:
            raise NotSent(f"cannot connect: {error.strerror or 'failed'}") from error
        self._all.add(connection)
        return connection

    def put_back(self, connection: _Connection) -> None:
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        for connection in list(self._all):
            connection.abort()


class UpstreamClient:
    """Sends requests to any origin. Close it when done."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._pools: dict[Origin, _Pool] = {}
        self._context: ssl.SSLContext | None = None

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

        Raises `NotSent`, `Broken` or `TimedOut`.
        """
        pool = self._pool(origin)
        connection = pool.take_idle()
        if connection is None:
            left = deadline - asyncio.get_running_loop().time()
            connection = await pool.connect(min(self._connect_timeout_s, max(left, 0)))
        try:
            return await connection.send(head, body, deadline, bodiless=bodiless)
        except asyncio.CancelledError:
            connection.give_up()
            raise

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _pool(self, origin: Origin) -> _Pool:
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = _Pool(origin, self._tls(origin))
        return pool

    def _tls(self, origin: Origin) -> ssl.SSLContext | None:
        if origin.scheme != "https":
            return None
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context
