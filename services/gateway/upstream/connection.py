"""A connection to an upstream: HTTP/1.1 on httptools, one request at a time. Knows
framing, not what it carries."""

import asyncio
import math
from dataclasses import dataclass
from typing import Any, cast

import httptools

from libs.common.headers import Header
from services.gateway.upstream.errors import UpstreamError
from services.gateway.upstream.pool import Pool
from services.gateway.upstream.response import (
    Answer,
    Broken,
    Interrupted,
    Slow,
    TimedOut,
)

_ENDED = b"\r\n\r\n"
SMALL_BODY = 16_384
LARGEST_HEAD = 65_536


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an upstream may be silent, in seconds: before its answer's head, and
    between two reads of its body."""

    first_s: float = math.inf
    idle_s: float = math.inf


NO_PATIENCE = Patience()


class UpstreamConnection(asyncio.Protocol):
    """One socket. A request, its answer, then the next.

    Idle: no `_head`, no `_answer`. Asked: `_head` waits for the answer's head.
    Answering: `_answer` takes the body.
    """

    def __init__(self, pool: "Pool[UpstreamConnection]") -> None:
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
        self._head_bytes += len(data)  # until a piece of a body comes
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._spoiled = True
            self._deliver()
            self._fail("it sent bytes that are no HTTP")
            return
        if self._whole and data[-1] in b"\r\n":
            self._spoiled = self._spoiled or self._overran(data)
        if self._pieces or self._whole:
            self._deliver()
        if self._spoiled:
            self.abort()  # bytes nobody asked for: it cannot be trusted
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

    def _overran(self, data: bytes) -> bool:
        """Do line breaks follow the answer? The parser passes over them without a
        word, as it does in front of a status line."""
        pieces, answer = self._pieces, self._answer
        if not pieces or (answer and _chunked(answer)):  # it ends with an empty line
            return not _ENDED.endswith(data[-4:]) or data.endswith(b"\n" + _ENDED)
        length = len(pieces[-1])
        # What comes in front of a body is the head's end, or in an earlier read. (Not
        # seen are line breaks behind a body of line breaks. They do no harm.)
        return not _ENDED.endswith(data[-length - 4 : -length])

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._pool.forget(self)
        if self._answer is not None and exc is None and _unframed(self._answer):
            self._whole = True
            self._deliver()
        else:
            self._fail("it closed the connection")

    # httptools ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._head is None:
            self._spoiled = True  # a first byte behind the answer

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._headers = []  # 100 Continue, 103 Early Hints: not the answer
            return
        if self._spoiled:
            return
        head, self._head = self._head, None
        assert head is not None
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


def _chunked(answer: Answer) -> bool:
    for name, _ in answer.headers:  # noqa: SIM110 - any() costs thrice as much
        if name == b"transfer-encoding":
            return True
    return False


def _unframed(answer: Answer) -> bool:
    """Without a length or chunks a body ends with its connection."""
    framed = (b"content-length", b"transfer-encoding")
    return not any(name in framed for name, _ in answer.headers)
