"""A client's connection: transport, task, time limits and end. `parser` reads its
requests, `response_writer` writes the responses.

Why the gateway has its own server: docs/adr/0004-own-http-server-and-client.md."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol, cast

from services.gateway import errors
from services.gateway.errors import Problem
from services.gateway.server import framing, phases, response_writer
from services.gateway.server.body_memory import Room
from services.gateway.server.head_fields import LARGEST_HEAD
from services.gateway.server.parser import RequestParser
from services.gateway.server.phases import IDLE, STOPPED, UPGRADED
from services.gateway.server.request import Request
from services.gateway.server.response_writer import Drains, ResponseWriter

_is_done: Final = asyncio.Future.done  # found sooner than by its name, as is the next
_set_result: Final = asyncio.Future.set_result
LINGER_S = 10.0  # a refused client may go on sending before it reads the response
MOST_DISCARDED = 16_777_216  # bytes of it


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """How long a client may take, in seconds."""

    head_s: float = 30.0  # for a request's head to arrive
    body_s: float = 60.0  # for the next BODY_STEP bytes of a body
    keep_alive_s: float = 120.0  # a connection without a request


class Site(Drains, Protocol):
    """The server that a connection belongs to."""

    largest_body: int  # bytes
    small_body: int  # bytes of a body that take nothing from `room`
    room: Room
    timeouts: ClientTimeouts

    def admit(self, connection: "Connection") -> bool: ...

    def left(self, connection: "Connection") -> None: ...

    def serve(
        self, request: Request, connection: "Connection"
    ) -> Coroutine[Any, Any, None]: ...

    def upgrade(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None: ...


class State(Enum):
    """What becomes of the connection. What it reads is the parser's `Phase`, since
    requests also arrive while one is served.

    WAITING <-> SERVING for each request. From SERVING, after the last response:
    CLOSING, or LINGERING if the client was refused and may be sending. WAITING ->
    CLOSING when nothing arrives for long, or the server has to close an idle
    connection. All -> GONE, which is final.
    """

    WAITING = "for a request or the rest of one"
    SERVING = "a request"
    LINGERING = "until the client closes; its bytes are discarded"
    CLOSING = "once the client has read what was written"
    GONE = "the client left, or a WebSocket has the transport"


# A lookup of a member on its class is slow: it runs a descriptor.
_WAITING: Final[State] = State.WAITING
_SERVING: Final[State] = State.SERVING
_GONE: Final[State] = State.GONE
_LINGERING, _CLOSING = State.LINGERING, State.CLOSING


class Connection(asyncio.Protocol):
    """One client: a request, its response, then the next. Requests that are pipelined
    wait in the parser's queue.

    `since` is the loop's time at which the wait for a request, for the rest of its
    head or body, or for the end of the connection began.
    """

    __slots__ = (
        "_discarded", "_drained", "_new_future", "_next_request", "_now", "_parser",
        "_request", "_site", "_state", "_transport", "_unserved", "loop", "on_drain",
        "paused", "since", "task", "writer"
    )  # fmt: skip

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self._site, self.loop, self._state = site, loop, _WAITING
        self._now: Callable[[], float] = loop.time  # bound once, as is the next
        self._new_future: Callable[[], asyncio.Future[None]] = loop.create_future
        self._transport: asyncio.Transport | None = None
        self._parser = RequestParser(site.largest_body, site.small_body, site.room)
        # Whoever responds calls the writer: a piece of a response costs one call.
        self.writer = ResponseWriter(site)
        # One task for all requests: creating one costs as much as routing a request.
        self.task: asyncio.Task[None] | None = None
        self._next_request: asyncio.Future[None] | None = None  # the task waits for it
        self._request: Request | None = None  # being served
        self._unserved: Request | None = None  # the same, until the task takes it
        self._discarded, self.since = 0, loop.time()
        # The client reads slower than we write, also while the next request arrives.
        self.paused = False
        self.on_drain: Callable[[], None] | None = None
        self._drained: asyncio.Future[None] | None = None

    @property
    def gone(self) -> bool:
        """Nobody waits for a response any more."""
        return self._state is _GONE

    @property
    def began(self) -> bool:
        """Whether the client was sent any part of the response."""
        return self.writer.progress is not response_writer.NONE

    @property
    def idle(self) -> bool:
        """Whether nothing is in progress."""
        return self._state is _WAITING and self._parser.phase is IDLE

    @property
    def peer(self) -> object:
        """The client's address, as transports give it."""
        return self._transport and self._transport.get_extra_info("peername")

    # asyncio.Protocol --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast(asyncio.Transport, transport)
        self.writer.write = transport.write
        if not self._site.admit(self):
            self._refuse(errors.too_many_connections())

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def eof_received(self) -> bool:
        self._leave()  # a client that half-closes does not read the response either
        return False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.on_drain is not None:
            self.on_drain()
        self._wake_drained()

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser.phase is STOPPED:
            self._discard(len(data))
            return
        if parser.feed(data):
            self.since = self._now()
        if parser.requests:
            if self._state is _WAITING:
                self._serve_next()
            if parser.requests:
                self._hold_up()
        if parser.phase is not IDLE:
            self._read_ended()

    def _read_ended(self) -> None:
        """A read ended within a request, or with the last one."""
        parser = self._parser
        if parser.upgraded is not None and parser.phase is UPGRADED:
            self._hand_over(parser.upgraded)
        elif parser.expects_continue:
            parser.expects_continue = False
            if self._state is _WAITING:
                self.writer.interim(framing.CONTINUE)

    def _discard(self, count: int) -> None:
        """Closed with unread bytes, a connection would be reset before the response."""
        self._discarded += count
        if self._discarded > MOST_DISCARDED:
            self.abort()

    # Requests ----------------------------------------------------------------

    def _hold_up(self) -> None:
        """Pipelined requests are served in order. No more are read until all are."""
        if self._transport is not None:
            self._transport.pause_reading()

    def _serve_next(self) -> None:
        self._state = _SERVING
        request = self._parser.requests.pop(0)
        self._request = self._unserved = self.writer.request = request
        self.writer.progress = response_writer.NONE
        waiting, self._next_request = self._next_request, None
        if waiting is not None and not _is_done(waiting):
            _set_result(waiting, None)
        elif self.task is None:
            self.task = self.loop.create_task(self._serve())

    async def _serve(self) -> None:
        """Serve one request after the other. A client that leaves cancels this."""
        try:
            while self._state is not _GONE:
                request, self._unserved = self._unserved, None
                if request is not None:
                    await self._site.serve(request, self)
                else:
                    self._next_request = self._new_future()
                    await self._next_request
        except asyncio.CancelledError:
            if self._state is not _GONE:
                raise
        finally:
            self.task = self._next_request = None
            if self._unserved is not None and self._state is _SERVING:
                self.task = self.loop.create_task(self._serve())  # the last was over

    def over(self) -> None:
        """The request was served. An incomplete response breaks the connection,
        so that its client does not take the part for the whole."""
        request, self._request = self._request, None
        self.on_drain = None
        if request is not None and request.held:
            self._give_back(request)
        if self._state is not _SERVING or self._transport is None:
            return
        requests = self._parser.requests
        if self.writer.progress is not response_writer.ENDED:
            self._state = _CLOSING
            self.abort()
        elif request is None or not request.keep_alive:
            self._end()
        elif requests:
            self._serve_next()
            if not requests:
                self._transport.resume_reading()
        else:
            self._state = _WAITING
            self.since = self._now()

    def _refuse(self, problem: Problem) -> None:
        """Respond with `problem`, and read no more requests."""
        self._parser.stop(problem)
        if self._state is _WAITING:
            self._serve_next()
        elif self._state is _SERVING:
            self._hold_up()

    def _hand_over(self, request: Request) -> None:
        """Pass the transport on to a WebSocket."""
        transport, rest = self._transport, self._parser.rest
        if transport is None or self._state is not _WAITING:
            self._refuse(errors.bad_request())
            return
        self._become_gone()
        transport.pause_reading()  # until the WebSocket takes over
        self._site.upgrade(request, transport, rest)
        if len(rest) > LARGEST_HEAD:  # frames, sent before the handshake is complete
            self.abort()

    def _give_back(self, request: Request) -> None:
        """Return the memory that its body took."""
        self._site.room.let_go(request.held)
        request.held = 0

    async def drained(self) -> None:
        """Returns when the client has read enough, or left."""
        while self.paused and self._state is not _GONE:
            self._drained = self._drained or self._new_future()
            await asyncio.shield(self._drained)

    def _wake_drained(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    # Ends --------------------------------------------------------------------

    def check(self, now: float) -> None:
        """End what takes too long; `now` is the loop's time. A request that is served
        has its own deadlines."""
        if self._state is _WAITING:
            self._check_waiting(now)
        elif self._state is not _SERVING and now - self.since > LINGER_S:
            self.abort()

    def _check_waiting(self, now: float) -> None:
        timeouts, phase = self._site.timeouts, self._parser.phase
        waited = now - self.since
        if phase is IDLE:
            if waited > timeouts.keep_alive_s:
                self.hang_up()
        elif phase is phases.HEAD_CONTINUED:
            if waited > timeouts.head_s:
                self._refuse(errors.head_stalled(timeouts.head_s))
        elif self._parser.made_progress():
            self.since = now
        elif waited > timeouts.body_s:
            self._refuse(errors.body_stalled(timeouts.body_s))

    def abort(self) -> None:
        """Break the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def hang_up(self) -> None:
        """Close the connection once the client has read what was written."""
        if self._transport is not None and self._state not in (_CLOSING, _GONE):
            self._state, self.since = _CLOSING, self.loop.time()
            self._transport.close()

    def _end(self) -> None:
        """The last response was sent."""
        assert self._transport is not None
        if self._parser.phase is not STOPPED:
            self.hang_up()
            return
        self._state, self.since = _LINGERING, self.loop.time()
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _leave(self) -> None:
        """The client left or its connection broke: cancel the request in progress."""
        if self._state is _GONE:
            return
        self._become_gone()
        if self._request is not None:
            self._give_back(self._request)
        for request in self._parser.requests:
            self._give_back(request)
        self._parser.requests.clear()
        self._wake_drained()

    def _become_gone(self) -> None:
        self._state = _GONE
        self._parser.close()
        self.writer.write = None
        self._site.left(self)
        if self.task is not None:
            self._next_request = None
            self.task.cancel()
