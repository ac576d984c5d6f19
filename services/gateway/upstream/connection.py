"""A connection to an upstream: HTTP/1.1 on httptools, one request at a time. Knows
framing, and nothing of what it carries."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, cast

import httptools

from libs.common.headers import NAMES, Header, Name
from services.gateway.upstream.errors import (
    Broken,
    Interrupted,
    Slow,
    TimedOut,
    UpstreamError,
)
from services.gateway.upstream.pool import Pool
from services.gateway.upstream.response import Answer, overran

_NAMES: Final = NAMES  # a method of an imported name is found more slowly
# A method of a class in C by its name costs as much as the call.
_is_done: Final = asyncio.Future.done
_set_result: Final = asyncio.Future.set_result
SMALL_BODY: Final = 16_384  # bytes
LARGEST_HEAD: Final = 65_536  # bytes; also of trailers and chunk extensions


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long an upstream may be silent, in seconds."""

    first_s: float = math.inf  # before the head of its response
    idle_s: float = math.inf  # between two reads of the body


NO_TIMEOUTS: Final = Timeouts()


class State(Enum):
    """IDLE -> WAITING -> ANSWERING -> COMPLETE -> IDLE for each request.

    Within the read that ends a response, COMPLETE may become SPOILED; a response that
    is the last one of its connection is LAST, not COMPLETE. When that read was
    delivered, LAST and SPOILED become CLOSED. Any state becomes CLOSED when a request
    fails or either side closes; that is final.
    """

    IDLE = "no request"
    WAITING = "for the head of a response"
    ANSWERING = "the body arrives"
    COMPLETE = "the response is complete, and another request may follow"
    LAST = "the response is complete, and the connection cannot be used again"
    SPOILED = "complete, with bytes behind it that nobody asked for"
    CLOSED = "no further requests"


# A lookup of a member on its class is slow in Python 3.11: it runs a descriptor.
_IDLE: Final[State] = State.IDLE
_WAITING: Final[State] = State.WAITING
_ANSWERING: Final[State] = State.ANSWERING
_COMPLETE: Final[State] = State.COMPLETE
_LAST: Final[State] = State.LAST
_SPOILED: Final[State] = State.SPOILED
_CLOSED: Final[State] = State.CLOSED


class UpstreamConnection(asyncio.Protocol):
    """One socket: a request, its response, then the next."""

    __slots__ = (
        "_answer", "_bodiless", "_deadline", "_feed", "_head", "_head_bytes",
        "_headers", "_heard_at", "_keeps_alive", "_new_future", "_now", "_order",
        "_paused", "_piece", "_pieces", "_pool", "_state", "_status", "_timeouts",
        "_transport", "_unwritten", "_write", "loop", "requests"
    )  # fmt: skip

    def __init__(self, pool: "Pool[UpstreamConnection]") -> None:
        self._pool, self.loop = pool, pool.loop
        self._state = _IDLE
        self._transport: asyncio.Transport | None = None
        # Bound once, because a look-up of a method costs a third of its call.
        self._new_future: Callable[[], asyncio.Future[Answer]] = self.loop.create_future
        self._now: Callable[[], float] = self.loop.time
        self._write: Callable[[bytes], None] | None = None
        self._unwritten: Callable[[], int] | None = None
        parser = httptools.HttpResponseParser(self)
        self._feed: Any = parser.feed_data
        self._status: Any = parser.get_status_code
        self._keeps_alive: Any = parser.should_keep_alive
        self._head: asyncio.Future[Answer] | None = None  # while WAITING
        self._answer: Answer | None = None  # from its head to its end
        self._headers: list[Header] = []
        self._order: list[Name] = []  # of the names in the last head
        self._piece = b""  # of the body, from the current read
        self._pieces: list[bytes] = []  # if there are several: most reads bring one
        self._head_bytes = 0  # read since the request, or since the body last grew
        self._bodiless = False  # the response to this request has no body
        # The reader is slow, and the socket is not read. Independent of the state: the
        # time that this takes is not the upstream's.
        self._paused = False
        self._timeouts = NO_TIMEOUTS
        self._deadline, self._heard_at, self.requests = math.inf, 0.0, 0

    def send(
        self,
        head: bytes,
        body: bytes,
        deadline: float,
        timeouts: Timeouts,
        *,
        bodiless: bool,
    ) -> "asyncio.Future[Answer]":
        """Write a request. The future returns when the response's head arrived."""
        self.requests += 1
        answer_head = self._head = self._new_future()
        self._head_bytes = 0
        write = self._write
        if write is None:
            self._fail("it closed the connection")
            return answer_head
        self._state = _WAITING
        self._bodiless = bodiless
        self._deadline, self._timeouts = deadline, timeouts
        self._heard_at = self._now()
        if self._headers:  # trailers of the last response
            self._headers = []
        if len(body) <= SMALL_BODY:
            # One system call; to copy so little costs less than a second one.
            write(head + body)
        else:
            write(head)
            write(body)
        return answer_head

    def withdraw(self, asked: "asyncio.Future[Answer]") -> None:
        """Nobody waits for this response. The connection may serve another by now."""
        if self._head is asked:
            self.abort()
        elif asked.done() and not asked.cancelled() and asked.exception() is None:
            asked.result().close()

    def abort(self) -> None:
        """Close at once. A request in progress fails."""
        self._over(Interrupted("the request was given up"))

    def end_within(self, seconds: float) -> None:
        """Nobody waits for the rest of the response: it has this long to arrive."""
        self._deadline = min(self._deadline, self.loop.time() + seconds)
        self.resume_reading()

    def pause_reading(self) -> None:
        """The reader holds enough for now."""
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """The reader took what it held."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._heard_at = self.loop.time()
            self._transport.resume_reading()

    def check(self, now: float) -> None:
        """End a request that takes too long; `now` is the loop's time."""
        state = self._state
        if self._paused or (state is not _WAITING and state is not _ANSWERING):
            return
        silent = now - self._heard_at
        if now >= self._deadline:
            self._over(TimedOut("it took too long"))
        elif state is _WAITING:
            if silent > self._timeouts.first_s:
                self._over(Slow("its answer did not begin in time"))
        elif silent > self._timeouts.idle_s:
            self._over(Slow("its answer did not go on"))

    # asyncio.Protocol --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        self._write = transport.write
        self._unwritten = transport.get_write_buffer_size

    def data_received(self, data: bytes) -> None:
        state = self._state
        if state is not _ANSWERING and state is not _WAITING:
            self.abort()  # bytes that nobody asked for
            return
        self._heard_at = self._now()
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._end_at_error()
            return
        state = self._state
        if state is _ANSWERING or state is _WAITING:
            if self._piece:
                self._deliver()
            elif self._head_bytes > LARGEST_HEAD:
                self._fail("its answer's headers never end")
        elif state is not _CLOSED:
            if data[-1] in b"\r\n" and state is _COMPLETE and self._overran(data):
                self._state = _SPOILED
            self._finish()

    def _overran(self, data: bytes) -> bool:
        last = self._pieces[-1] if self._pieces else self._piece
        return overran(data, last, self._answer)

    def _deliver(self) -> None:
        """Pass on what one read brought of a body, in one piece."""
        data, answer = self._take(), self._answer
        self._head_bytes = 0
        if answer is not None:
            answer.feed(data, last=False)

    def _take(self) -> bytes:
        """What the current read brought of a body so far."""
        data, self._piece = self._piece, b""
        if self._pieces:
            data = b"".join(self._pieces)
            self._pieces = []
        return data

    def _finish(self) -> None:
        """Pass on the end of a response. Before that the connection is put back or
        closed: who gets the end may send the next request."""
        data, answer = self._take(), self._answer
        assert answer is not None
        self._answer = None
        # When a response arrives before the request was written completely, the rest
        # of the request stands in the way of the next.
        unwritten = self._unwritten
        sent = unwritten is not None and not unwritten()
        if self._state is _COMPLETE and sent:
            self._state = _IDLE
            if self._paused:
                self.resume_reading()
            self._pool.put_back(self, self._heard_at)
        else:
            self._close()
        answer.feed(data, last=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._write = self._unwritten = None
        self._pool.forget(self)
        if self._state is _ANSWERING and exc is None and self._ends_with_connection():
            self._state = _LAST
            self._finish()
        else:
            self._fail("it closed the connection")
        self._feed = self._status = self._keeps_alive = None  # a cycle

    def _ends_with_connection(self) -> bool:
        """Whether the response has neither a length nor chunks."""
        framed = (b"content-length", b"transfer-encoding")
        headers = [] if self._answer is None else self._answer.headers
        return not any(name in framed for name, _ in headers)

    # httptools ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._state is not _WAITING and self._state is not _CLOSED:
            self._state = _SPOILED  # a first byte behind the response

    def on_header(self, name: bytes, value: bytes) -> None:
        headers, order = self._headers, self._order
        place = len(headers)
        known = place < len(order) and order[place][0] == name
        lower = order[place][1] if known else _NAMES.placed(name, order, place)[1]
        headers.append((lower, value))

    def on_headers_complete(self) -> None:
        status: int = self._status()
        if status < 200:
            self._headers = []  # 100 Continue, 103 Early Hints: not the response
            return
        if self._state is not _WAITING:
            return
        head, self._head = self._head, None
        assert head is not None
        self._answer = answer = Answer(self, status, self._headers)
        self._headers = []  # trailers do not change the head
        if _is_done(head):
            self.abort()  # given up, and the cancellation is on its way
            return
        _set_result(head, answer)
        # llhttp does not know the request's method, and waits for a body.
        self._state = _LAST if self._bodiless else _ANSWERING
        self._head_bytes = 0  # from here on: what is neither head nor body

    def on_body(self, data: bytes) -> None:
        if self._state is _ANSWERING:
            if self._pieces:
                self._pieces.append(data)
            elif self._piece:
                self._pieces = [self._piece, data]
            else:
                self._piece = data

    def on_message_complete(self) -> None:
        if self._state is _ANSWERING or self._state is _LAST:
            # Asked now: llhttp has forgotten it when the read ends.
            self._state = _COMPLETE if self._keeps_alive() else _LAST

    # Ends --------------------------------------------------------------------

    def _end_at_error(self) -> None:
        """The upstream sent something else than HTTP, or than what was asked for."""
        if self._state is _ANSWERING:
            if self._piece:
                self._deliver()
        elif self._answer is not None:
            self._state = _SPOILED
            self._finish()
        self._fail("it sent bytes that are no HTTP")

    def _fail(self, cause: str) -> None:
        """The connection cannot be used any further."""
        if self._answer is not None:
            self._over(Interrupted(cause))
            return
        broken = Broken(cause)
        broken.reused = self.requests > 1 and self._head_bytes == 0
        self._over(broken)

    def _over(self, error: UpstreamError) -> None:
        """The request, if there is one, fails with `error`."""
        head, self._head = self._head, None
        answer, self._answer = self._answer, None
        self._piece, self._pieces = b"", []
        self._close()
        if answer is not None:
            answer.fail(error)
        if head is not None and not head.done():
            head.set_exception(error)

    def _close(self) -> None:
        self._state = _CLOSED
        self._pool.forget(self)  # at once: nobody may take it any more
        if self._transport is not None:
            self._transport.abort()
