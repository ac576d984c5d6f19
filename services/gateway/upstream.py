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
SMALL_BODY = 16_384
LARGEST_HEAD = 65_536


class UpstreamError(ProxyError):
    """The upstream gave no usable answer."""


class NotSent(UpstreamError):
    """No connection: nothing was sent, so it may go anywhere."""


class NoKey(UpstreamError):
    """this gateway cannot resolve its key"""


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

    It lets go of its connection when the body ends, for the connection then
    serves somebody else.
    """

    __slots__ = ("_chunks", "_connection", "_error", "_held", "_wake", "headers",
                 "status")  # fmt: skip

    def __init__(
        self, connection: "_Connection", status: int, headers: list[Header]
    ) -> None:
        self._connection: _Connection | None = connection
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._error: UpstreamError | None = None
        self._wake: asyncio.Future[None] | None = None
        self.status = status
        self.headers = headers

    async def next(self) -> bytes:
        """The bytes that arrived since the last call; empty at the end. Raises
        `Interrupted` or `TimedOut`."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._connection is None:
                return b""
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        return self._take()

    @property
    def ended(self) -> bool:
        """Nothing will arrive beyond what `next` gave."""
        return self._connection is None and self._error is None and not self._chunks

    @property
    def waiting(self) -> bool:
        """Would `next` return at once?"""
        return bool(self._chunks) or self._connection is None

    def close(self) -> None:
        """Give up what has not arrived; after the end this does nothing."""
        if self._connection is not None:
            self._connection.abort()

    def _take(self) -> bytes:
        if len(self._chunks) == 1:
            data = self._chunks.popleft()
        else:
            data = b"".join(self._chunks)
            self._chunks.clear()
        self._held = 0
        if self._connection is not None:
            self._connection.read_on()
        return data

    # The connection's side ---------------------------------------------------

    def feed(self, data: bytes) -> bool:
        """Hold bytes for `next`. True when there are enough for now."""
        self._chunks.append(data)
        self._held += len(data)
        self._stir()
        return self._held > HIGH_WATER

    def finish(self, error: UpstreamError | None = None) -> None:
        """The body ended, as it should or with an error."""
        self._connection = None
        self._error = error
        self._stir()

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class _Connection(asyncio.Protocol):
    """One socket. A request, its answer, then the next.

    Idle: no `_head`, no `_answer`. Asked: `_head` waits for the answer's head.
    Answering: `_answer` takes the body.
    """

    def __init__(self, pool: "_Pool") -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._head: asyncio.Future[Answer] | None = None
        self._answer: Answer | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._headers: list[Header] = []
        self._head_bytes = 0
        self._resting = False
        self._bodiless = False
        self._spoiled = False
        self.requests = 0
        self.idle_since = 0.0

    def send(
        self, head: bytes, body: bytes, deadline: float, *, bodiless: bool
    ) -> "asyncio.Future[Answer]":
        """Write a request; the future gives the answer's head."""
        self.requests += 1
        answer_head = self._head = self._loop.create_future()
        self._head_bytes = 0
        if self._transport is None:
            self._fail("it closed the connection")
            return answer_head
        self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._bodiless = bodiless
        self._deadline = self._loop.call_at(deadline, self._time_out)
        if len(body) <= SMALL_BODY:
            # One system call; copying so little costs less than a second one.
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        return answer_head

    def withdraw(self, asked: "asyncio.Future[Answer]") -> None:
        """Nobody waits for this answer any more. By now it may be whole and
        the connection somebody else's."""
        if self._head is asked:
            self.abort()
        elif asked.done() and not asked.cancelled() and asked.exception() is None:
            asked.result().close()

    def abort(self) -> None:
        """Close at once; whoever waits for this connection is told."""
        self._over(Interrupted("the request was given up"))

    def read_on(self) -> None:
        """The reader took what was held."""
        if self._resting and self._transport is not None:
            self._resting = False
            self._transport.resume_reading()

    # asyncio.Protocol --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._head is None and self._answer is None:
            self.abort()  # bytes nobody asked for: it cannot be trusted
            return
        if self._head is not None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("it sent bytes that are no HTTP")
            return
        if self._spoiled:
            self.abort()  # answers nobody asked for: it cannot be trusted
            return
        if self._head is not None and self._head_bytes > LARGEST_HEAD:
            self._fail("its answer's headers never end")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.forget(self)
        if self._answer is not None and exc is None and _unframed(self._answer):
            self._over(None)
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
        head, self._head = self._head, None
        if head is None:
            self._spoiled = True
            return
        self._answer = answer = Answer(self, status, self._headers)
        self._headers = []  # trailers shall not change the head
        if head.done():
            self.abort()  # given up, and its cancellation is on the way
            return
        head.set_result(answer)
        if self._bodiless:
            self._over(None)

    def on_body(self, data: bytes) -> None:
        if self._answer is None:
            return
        enough = self._answer.feed(data)
        if enough and not self._resting and self._transport is not None:
            self._resting = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._answer is not None:
            self._end_of_body()

    # Ends --------------------------------------------------------------------

    def _end_of_body(self) -> None:
        """The answer is whole: the connection serves the next request."""
        if not self._reusable():
            self._over(None)
            return
        answer = self._let_go()
        self.read_on()
        self._pool.put_back(self)
        if answer is not None:
            answer.finish()

    def _reusable(self) -> bool:
        """An answer that came before its request was all sent leaves the rest
        of it in the socket's way."""
        transport = self._transport
        return (
            transport is not None
            and bool(self._parser.should_keep_alive())
            and transport.get_write_buffer_size() == 0
        )

    def _fail(self, cause: str) -> None:
        answering = self._answer is not None
        self._over(Interrupted(cause) if answering else self._broken(cause))

    def _broken(self, cause: str) -> Broken:
        broken = Broken(cause)
        broken.reused = self.requests > 1 and self._head_bytes == 0
        return broken

    def _time_out(self) -> None:
        self._over(TimedOut("it took too long"))

    def _over(self, error: UpstreamError | None) -> None:
        """The request, and with it the connection, is over."""
        head, self._head = self._head, None
        answer = self._let_go()
        if answer is not None:
            answer.finish(error)
        if head is not None and not head.done() and error is not None:
            head.set_exception(error)
        self._pool.forget(self)  # at once: nobody may take it any more
        if self._transport is not None:
            self._transport.abort()

    def _let_go(self) -> Answer | None:
        answer, self._answer = self._answer, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        return answer


def _unframed(answer: Answer) -> bool:
    """Without a length or chunks a body ends with its connection."""
    framed = (b"content-length", b"transfer-encoding")
    return not any(name in framed for name, _ in answer.headers)


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

    def drop_idle(self) -> None:
        """Close what is kept: the next request connects anew."""
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()

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
        asked = connection.send(head, body, deadline, bodiless=bodiless)
        try:
            return await asked
        except asyncio.CancelledError:
            connection.withdraw(asked)
            raise
        except Broken as broken:
            if broken.reused:
                pool.drop_idle()  # one closed for idleness is rarely alone
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
