"""Connections to upstreams: keep-alive, TLS, back-pressure, one request at a
time each. Knows HTTP/1.1, not what it carries.

hotpath.md has the measurements: a protocol on httptools forwards at a
twentieth of httpx's cost, which is why the data plane has a client of its own.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Any, Protocol, cast

import httptools

from libs.common.contracts import Cause
from services.gateway.dialing import Dialer
from services.gateway.origins import NotSent, Origin, UpstreamError
from services.gateway.pooling import Pool
from services.gateway.tunnels import forwarded_head

__all__ = ["Answer", "Broken", "Interrupted", "NoKey", "NotSent", "Origin", "Patience",
           "Sink", "Slow", "TimedOut", "UpstreamClient", "UpstreamError"]  # fmt: skip

Header = tuple[bytes, bytes]

IDLE_SECONDS = 55.0  # below the keep-alive of common servers (nginx: 75 s)
HIGH_WATER = 262_144  # bytes held for a slow reader before the socket rests
SMALL_BODY = 16_384
LARGEST_HEAD = 65_536
MOST_CONNECTIONS = 10_000
REST_S = 1.0  # for the end of an answer that nobody reads any more


class NoKey(UpstreamError):
    """this gateway cannot resolve its key"""

    cause = Cause.NO_KEY


class Broken(UpstreamError):
    """The connection ended, or spoke no HTTP, before an answer's head."""

    # A kept connection that had served before: it may just have been closed
    # for idleness, which says nothing of the upstream.
    reused = False


class TimedOut(UpstreamError):
    """The request's time is up."""

    cause = Cause.TIMEOUT


class Slow(UpstreamError):
    """The upstream was silent for too long; the request has time left."""

    cause = Cause.TIMEOUT


class Interrupted(UpstreamError):
    """The answer ended in the middle of its body."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an upstream may be silent, in seconds: before its answer's head, and
    between two reads of its body."""

    first_s: float = math.inf
    idle_s: float = math.inf


NO_PATIENCE = Patience()


class Sink(Protocol):
    """Takes an answer's body as it comes. Called from the connection: it may not
    wait, and raises nothing."""

    def feed(self, data: bytes, *, last: bool) -> None: ...

    def fail(self, error: UpstreamError) -> None: ...


class Answer:
    """An answer under way: its head, then its body: piece by piece to whoever
    awaits `next`, or pushed into a sink, which costs no task a turn of the loop.

    It lets go of its connection when the body ends, for the connection then
    serves somebody else.
    """

    __slots__ = ("_chunks", "_connection", "_error", "_held", "_sink", "_wake",
                 "headers", "status")  # fmt: skip

    def __init__(
        self, connection: "_Connection", status: int, headers: list[Header]
    ) -> None:
        self._connection: _Connection | None = connection
        self._chunks: list[bytes] = []
        self._held = 0
        self._error: UpstreamError | None = None
        self._wake: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
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
            self._wake = self._connection.loop.create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        return self._take()

    def flow_into(self, sink: Sink) -> None:
        """Push what there is, and what comes, into `sink`: until its `last` piece or
        its failure, of which there is exactly one."""
        self._sink = sink
        if self._chunks:
            ends = self._connection is None and self._error is None
            if ends:
                self._sink = None
            sink.feed(self._take(), last=ends)
            if ends:
                return
        if self._connection is None:
            self._sink = None
            if self._error is not None:
                sink.fail(self._error)
            else:
                sink.feed(b"", last=True)

    def pause(self) -> None:
        """The sink has enough for now."""
        if self._connection is not None:
            self._connection.rest()

    def resume(self) -> None:
        """The sink takes more."""
        if self._connection is not None:
            self._connection.read_on()

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
        self._sink = None
        if self._connection is not None:
            self._connection.abort()

    def finish_alone(self) -> None:
        """All that matters has arrived, and nobody listens any more: let the rest
        come, for a moment, so that the connection serves the next request."""
        self._sink = _NOBODY
        if self._connection is not None:
            self._connection.end_within(REST_S)

    def _take(self) -> bytes:
        chunks, self._chunks, self._held = self._chunks, [], 0
        if self._connection is not None:
            self._connection.read_on()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    # The connection's side ---------------------------------------------------

    def feed(self, data: bytes, *, last: bool) -> None:
        """What one read of the socket brought."""
        if last:
            self._connection = None
        sink = self._sink
        if sink is not None:
            if last:
                self._sink = None  # it knows us
            sink.feed(data, last=last)
            return
        if data:
            self._chunks.append(data)
            self._held += len(data)
            if self._held > HIGH_WATER and self._connection is not None:
                self._connection.rest()
        self._stir()

    def fail(self, error: UpstreamError) -> None:
        """The body ended before it should."""
        self._connection = None
        self._error = error
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(error)
        self._stir()

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class _Nobody:
    """A sink for what nobody reads."""

    def feed(self, data: bytes, *, last: bool) -> None:
        pass

    def fail(self, error: UpstreamError) -> None:
        pass


_NOBODY = _Nobody()


class _Connection(asyncio.Protocol):
    """One socket. A request, its answer, then the next.

    Idle: no `_head`, no `_answer`. Asked: `_head` waits for the answer's head.
    Answering: `_answer` takes the body.
    """

    def __init__(self, pool: "Pool[_Connection]") -> None:
        self._pool = pool
        self.loop = pool.loop
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._head: asyncio.Future[Answer] | None = None
        self._answer: Answer | None = None
        self._headers: list[Header] = []
        self._pieces: list[bytes] = []
        self._head_bytes = 0
        self._resting = self._whole = False
        self._bodiless = False
        self._spoiled = self._keeps = False
        self._patience = NO_PATIENCE
        self._deadline = math.inf
        self._heard_at = 0.0
        self.requests = 0

    def send(
        self,
        head: bytes,
        body: bytes,
        deadline: float,
        patience: "Patience",
        *,
        bodiless: bool,
    ) -> "asyncio.Future[Answer]":
        """Write a request; the future gives the answer's head."""
        self.requests += 1
        answer_head = self._head = self.loop.create_future()
        self._head_bytes = 0
        if self._transport is None:
            self._fail("it closed the connection")
            return answer_head
        if self._parser is None:
            # One for all answers of a connection: making one looks up each callback.
            self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._bodiless = bodiless
        self._deadline, self._patience = deadline, patience
        self._heard_at = self.loop.time()
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

    def end_within(self, seconds: float) -> None:
        """Nobody waits for the rest of the answer: it has so much time to come."""
        self._deadline = min(self._deadline, self.loop.time() + seconds)
        self.read_on()

    def rest(self) -> None:
        """There is enough for now: read no more."""
        if not self._resting and self._transport is not None:
            self._resting = True
            self._transport.pause_reading()

    def read_on(self) -> None:
        """The reader took what was held."""
        if self._resting and self._transport is not None:
            self._resting = False
            self._heard_at = self.loop.time()
            self._transport.resume_reading()

    def check(self, now: float) -> None:
        """End what takes too long; not while it is the reader that does."""
        if self._resting:
            return
        if now >= self._deadline:
            self._over(TimedOut("it took too long"))
        elif self._head is not None and now - self._heard_at > self._patience.first_s:
            self._over(Slow("its answer did not begin in time"))
        elif self._answer is not None and now - self._heard_at > self._patience.idle_s:
            self._over(Slow("its answer did not go on"))

    # asyncio.Protocol --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._head is None and self._answer is None:
            self.abort()  # bytes nobody asked for: it cannot be trusted
            return
        self._heard_at = self.loop.time()
        if self._head is not None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._deliver()
            self._fail("it sent bytes that are no HTTP")
            return
        if self._pieces or self._whole:
            self._deliver()
        elif self._answer is not None:
            self._head_bytes += len(data)
        if self._spoiled:
            self.abort()  # answers nobody asked for: it cannot be trusted
        elif self._head_bytes > LARGEST_HEAD:
            self._fail("its answer's headers never end")

    def _deliver(self) -> None:
        """Hand over what one read brought, together."""
        pieces, whole, answer = self._pieces, self._whole, self._answer
        if answer is None:
            return
        self._pieces, self._whole, self._head_bytes = [], False, 0
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not whole:
            if data:
                answer.feed(data, last=False)
            return
        # The connection is somebody else's before the answer's end is told.
        reusable = self._reusable()
        self._let_go()
        if reusable:
            self.read_on()
            self._pool.put_back(self)
        else:
            self._hang_up()
        answer.feed(data, last=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.forget(self)
        if self._answer is not None and exc is None and _unframed(self._answer):
            self._whole = True
            self._deliver()
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
        # The parser does not know what was asked, and waits for a body.
        self._whole, self._keeps = self._bodiless, False
        self._head_bytes = 0  # from here on: what is neither head nor body

    def on_body(self, data: bytes) -> None:
        if not self._spoiled and not self._bodiless:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._whole = self._answer is not None
        # Later the parser has forgotten.
        self._keeps = bool(self._parser.should_keep_alive())

    # Ends --------------------------------------------------------------------

    def _reusable(self) -> bool:
        """An answer that came before its request was all sent leaves the rest
        of it in the socket's way."""
        transport = self._transport
        return (
            transport is not None
            and self._keeps
            and not self._spoiled
            and transport.get_write_buffer_size() == 0
        )

    def _fail(self, cause: str) -> None:
        answering = self._answer is not None
        self._over(Interrupted(cause) if answering else self._broken(cause))

    def _broken(self, cause: str) -> Broken:
        broken = Broken(cause)
        broken.reused = self.requests > 1 and self._head_bytes == 0
        return broken

    def _over(self, error: UpstreamError) -> None:
        """The request, and with it the connection, is over."""
        head, self._head = self._head, None
        answer = self._let_go()
        self._hang_up()
        if answer is not None:
            answer.fail(error)
        if head is not None and not head.done():
            head.set_exception(error)

    def _hang_up(self) -> None:
        self._pool.forget(self)  # at once: nobody may take it any more
        if self._transport is not None:
            self._transport.abort()

    def _let_go(self) -> Answer | None:
        answer, self._answer = self._answer, None
        self._pieces, self._whole = [], False
        self._deadline = math.inf
        return answer


def _unframed(answer: Answer) -> bool:
    """Without a length or chunks a body ends with its connection."""
    framed = (b"content-length", b"transfer-encoding")
    return not any(name in framed for name, _ in answer.headers)


class _Way:
    """To one origin: its connections, and how new ones are made."""

    def __init__(self, origin: Origin, dialer: Dialer, limit: int) -> None:
        self._origin = origin
        self._dialer = dialer
        self._forwarder = dialer.forwarder(origin)
        self.pool: Pool[_Connection] = Pool(limit, IDLE_SECONDS, _Connection.abort)

    def addressed(self, head: bytes) -> bytes:
        """A request's head as the next hop wants it."""
        if self._forwarder is None:
            return head
        return forwarded_head(head, self._forwarder, self._origin)

    async def connection(self, deadline: float, connect_s: float) -> _Connection:
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

    async def _dial(self, timeout_s: float) -> _Connection:
        transport, made = await self._dialer.dial(
            self._origin, lambda: _Connection(self.pool), timeout_s
        )
        if transport.is_closing():  # the pool would never hear of its end
            raise NotSent("it closed the connection")
        return cast(_Connection, made)


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
