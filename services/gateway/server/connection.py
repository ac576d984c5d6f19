"""A client's connection: HTTP/1.1 as servers speak it (RFC 9112), on httptools.
Knows framing, limits and who is still there; not what is asked.

A server of our own where Granian serves the other services: one thread, no task
and no copy between socket and data plane. An empty answer costs a quarter of what
it costs under Granian (docs/benchmarks.md), and a client's leaving is known at
once."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast

import httptools

from libs.common.headers import Header
from services.gateway import errors
from services.gateway.errors import Problem
from services.gateway.server import framing
from services.gateway.server.body_memory import Room
from services.gateway.server.request import Request, origin_form, valid_host

DEAF_S = 10.0  # a refused client sends on before it reads
MOST_DISCARDED = 16_777_216
LARGEST_HEAD = 65_536
MOST_HEADERS = 128
MOST_PIECES = 4096  # of a body, before they are put together
BODY_STEP = 1024  # bytes of a body; fewer do not count as going on
_WATCHED = frozenset(
    {
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"origin",
        b"transfer-encoding",
        b"upgrade",
    }
)


@dataclass(frozen=True, slots=True)
class Times:
    """How long a client may take, in seconds."""

    head_s: float = 30.0  # for a request's head to arrive
    body_s: float = 60.0  # for the next BODY_STEP bytes of a body
    keep_alive_s: float = 120.0  # a connection without a request


class Site(Protocol):
    """What a connection belongs to."""

    largest_body: int
    small_body: int  # bytes of a body that need no room
    room: Room
    times: Times
    draining: bool

    def admit(self, connection: "Connection") -> bool: ...

    def left(self, connection: "Connection") -> None: ...

    def serve(
        self, request: Request, connection: "Connection"
    ) -> Coroutine[Any, Any, None]: ...

    def upgrade(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None: ...


class Connection(asyncio.Protocol):
    """One client. A request, its answer, then the next.

    `since` is the loop's time at which the current phase began: waiting for a
    request, its head, its body, or its end after a refusal.
    """

    # More attributes than an instance dict shares between instances (30): slots keep
    # each access one load.
    __slots__ = (
        "_asked", "_began", "_body_bytes", "_body_looked", "_body_read",
        "_chunked", "_coding", "_content_type", "_deaf", "_drained", "_empty",
        "_ended", "_expects", "_has_body", "_head_bytes", "_headers", "_held",
        "_host", "_in_head", "_incoming", "_leaving", "_origin", "_parser",
        "_pieces", "_problem", "_queued", "_repeats", "_request", "_site",
        "_target", "_transport", "_upgrade", "_valid_host", "gone", "loop",
        "on_drain", "paused", "since", "task"
    )  # fmt: skip

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self._site = site
        self.loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        # One task for all requests of a connection: making one costs as much as
        # routing does.
        self.task: asyncio.Task[None] | None = None
        self._asked: asyncio.Future[None] | None = None  # while it waits for one
        self._queued: deque[Request] = deque()
        self._request: Request | None = None  # the one that is served
        # The request that arrives.
        self._target = b""
        self._headers: list[Header] = []
        self._incoming: Request | None = None  # once its head is whole
        self._pieces: list[bytes | bytearray] = []
        self._body_bytes = 0
        self._held = 0  # room that its body takes
        # Of the head, less the read it began with; -1 during that one. Once it is
        # whole: since its body went on.
        self._head_bytes = -1
        self._body_read = 0  # so many came with earlier reads
        self._body_looked = 0  # so many had come when `check` last restarted its time
        self._problem: Problem | None = None
        self._content_type: bytes | None = None
        self._coding: bytes | None = None
        self._origin: bytes | None = None
        self._in_head = self._expects = self._has_body = self._repeats = False
        self._upgrade: bytes | None = None  # the protocols it asks for
        self._host: bytes | None = None
        self._valid_host: bytes | None = None  # the last that was found valid
        self._deaf = False  # refused: what comes is not read
        self._leaving = False  # closed, once the last answer was read
        # The answer under way.
        self._began = self._ended = self._chunked = self._empty = False
        self._drained: asyncio.Future[None] | None = None
        self.since = loop.time()
        self.paused = False  # the client reads slower than we write
        self.on_drain: Callable[[], None] | None = None
        self.gone = False

    # asyncio.Protocol --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._site.admit(self):
            self._refuse(errors.too_many_connections())

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def eof_received(self) -> bool:
        self._leave()  # a client that half-closes has left
        return False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.on_drain is not None:
            self.on_drain()
        self._stir()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._discard(len(data))
            return
        if len(data) > LARGEST_HEAD:
            self._read_much(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse(self._upgraded(data[upgrade.args[0] :]))
        except httptools.HttpParserError:
            self._refuse(errors.bad_request())
        if self._in_head:
            self._head_went_on(len(data))
        elif self._incoming is not None:
            self._body_went_on(len(data))

    def _parse(self, data: bytes) -> None:
        """Go on after the parser stopped. llhttp stops behind a head that asks for
        another protocol, whatever body it announces. One that is served as an ordinary
        request is parsed again without its Upgrade header, by a parser that goes on."""
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._upgraded(data[upgrade.args[0] :])
                continue
            except httptools.HttpParserError:
                self._refuse(errors.bad_request())
            return

    def _upgraded(self, rest: bytes) -> bytes:
        """The parser stopped in front of `rest`; returns what is to be parsed next."""
        if self._deaf:
            return b""
        if self._parser.get_method() == b"CONNECT":
            self._deaf = True  # what follows is of a protocol that we do not speak
            return b""
        if self._incoming is not None:
            self._open_socket(self._incoming, rest)
            return b""
        head = framing.without_upgrade(
            self._parser.get_method(),
            self._target,
            self._parser.get_http_version().encode(),
            self._headers,
        )
        self._parser = httptools.HttpRequestParser(self)
        return head + rest

    def _read_much(self, data: bytes) -> None:
        """A head that comes whole with one read would not be measured."""
        for start in range(0, len(data), LARGEST_HEAD):
            if self.gone:  # upgraded, with frames behind that came before the 101
                self.abort()
                return
            self.data_received(data[start : start + LARGEST_HEAD])

    def _head_went_on(self, count: int) -> None:
        """A read ended in a head."""
        if self._head_bytes < 0:
            self._head_bytes = 0  # what else came with it is not its own
            return
        self._head_bytes += count
        if self._head_bytes > LARGEST_HEAD:
            self._refuse(errors.head_too_large(LARGEST_HEAD))

    def _head_is_large(self) -> bool:
        """Of one that took several reads."""
        size = len(self._target) + sum(len(n) + len(v) + 4 for n, v in self._headers)
        return size > LARGEST_HEAD

    def _body_went_on(self, count: int) -> None:
        """A read ended in a body. What is no body (extensions of chunks, trailers)
        is bounded, and so is the number of its pieces: each weighs more than the
        few bytes it may bring."""
        self._head_bytes += count
        if self._body_bytes > self._body_read:
            self._body_read, self._head_bytes = self._body_bytes, 0
        if self._head_bytes > LARGEST_HEAD:
            self._refuse(errors.head_too_large(LARGEST_HEAD))
        elif len(self._pieces) > MOST_PIECES:
            first, *others = self._pieces
            gathered = first if isinstance(first, bytearray) else bytearray(first)
            gathered += b"".join(others)
            self._pieces = [gathered, b""]

    def _discard(self, count: int) -> None:
        """A connection closed upon unread bytes is reset, and the client would
        never see the answer."""
        self._body_bytes += count
        if self._body_bytes > MOST_DISCARDED:
            self.abort()

    # httptools ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers = []
        self._incoming = None
        self._pieces = []
        self._body_bytes = self._body_read = 0
        self._head_bytes = -1
        self._body_looked = -BODY_STEP  # its time begins with the first look
        self._problem = None
        self._content_type = self._coding = self._origin = None
        self._expects = self._has_body = self._repeats = False
        self._upgrade = self._host = None
        self._in_head = True
        self.since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._headers.append((name, value))
        if name in _WATCHED:
            self._watch(name, value)

    def _watch(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            if self._host is None and value == self._valid_host:
                self._host = value
            else:
                self._watch_host(value)
        elif name == b"content-type":
            self._repeats = self._repeats or self._content_type is not None
            self._content_type = self._content_type or value
        elif name == b"content-length":
            self._has_body = value != b"0"
            if value.isdigit() and int(value) > self._site.largest_body:
                self._problem = errors.body_too_large(self._site.largest_body)
        else:
            self._watch_rare(name, value)

    def _watch_rare(self, name: bytes, value: bytes) -> None:
        if name == b"content-encoding":
            self._repeats = self._repeats or self._coding is not None
            self._coding = self._coding or value
        elif name == b"transfer-encoding":
            self._has_body = True
            if value.lower() != b"chunked" or self._parser.get_http_version() == "1.0":
                self._problem = errors.unknown_framing()
        elif name == b"origin":
            self._origin = value
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue"
        else:
            earlier = b"" if self._upgrade is None else self._upgrade + b", "
            self._upgrade = earlier + value.lower()

    def _watch_host(self, value: bytes) -> None:
        if self._host is not None:
            self._problem = errors.bad_host()
        elif value != self._valid_host:
            value = value.strip(b" \t")
            if not valid_host(value):
                self._problem = errors.bad_host()
            self._valid_host = value
        self._host = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_bytes >= 0 or len(self._headers) > MOST_HEADERS:
            self._check_size()
        target = self._target
        if not target.startswith(b"/"):
            target = self._origin_form(target)
        request = Request(self._parser.get_method().decode(), target, self._headers)
        request.content_type, request.coding = self._content_type, self._coding
        request.origin, request.repeats = self._origin, self._repeats
        if self._parser.get_http_version() != "1.1":
            self._check_version(request)
        elif self._host is None:
            self._problem = errors.bad_host()
        if self._upgrade is not None and self._is_parsed_again(request):
            return
        self._incoming = request
        self._headers = []  # trailers shall not change the head
        if self._problem is not None:
            self._refuse(self._problem)
        elif self._expects and self._request is None and not request.http_1_0:
            self._write(framing.CONTINUE)

    def _check_size(self) -> None:
        if len(self._headers) > MOST_HEADERS:
            self._problem = errors.too_many_headers(MOST_HEADERS)
        elif self._head_is_large():
            self._problem = errors.head_too_large(LARGEST_HEAD)

    def _check_version(self, request: Request) -> None:
        request.http_1_0 = True
        if self._parser.get_http_version() != "1.0":
            self._problem = errors.unknown_version()

    def _origin_form(self, target: bytes) -> bytes:
        """A target that is a whole URL says the host (RFC 9112 section 3.2.2)."""
        host, path = origin_form(target)
        if host is not None:
            if not valid_host(host):
                self._problem = errors.bad_host()
            given = [header for header in self._headers if header[0] != b"host"]
            self._headers = [(b"host", host), *given]
        return path

    def _is_parsed_again(self, request: Request) -> bool:
        """Does the parser stop, although the request asks for no WebSocket of RFC 6455
        section 4.1? A server may ignore that other protocols are asked for (RFC 9110
        section 7.8)."""
        if self._problem is not None or request.method == "CONNECT":
            return False
        opens_socket = (
            self._upgrade == b"websocket"
            and request.method == "GET"
            and not (request.http_1_0 or self._has_body)
        )
        return not opens_socket and self._parser.should_upgrade()

    def on_body(self, data: bytes) -> None:
        if self._deaf:
            return
        self._pieces.append(data)
        self._body_bytes += len(data)
        if self._body_bytes > self._site.small_body:
            self._take_room()

    def _take_room(self) -> None:
        """Of a body that is not small."""
        if self._body_bytes > self._site.largest_body:
            self._refuse(errors.body_too_large(self._site.largest_body))
        elif self._site.room.hold(self._body_bytes - self._held):
            self._held = self._body_bytes
        else:
            self._refuse(errors.no_room_for_body())

    def on_message_complete(self) -> None:
        request = self._incoming
        if self._deaf or request is None:
            return
        pieces = self._pieces
        if pieces:
            request.body = b"".join(pieces)
            self._pieces = []
        if self._held:
            request.held, self._held = self._held, 0
        request.keep_alive = self._parser.should_keep_alive()
        if self._parser.should_upgrade():
            if request.method != "CONNECT":
                return  # the parser tells where the socket's bytes begin
            request.keep_alive = False
        self._incoming = None
        self._take(request)

    def _take(self, request: Request) -> None:
        if self._request is None:
            self._begin(request)
            return
        # Pipelined: in order, and no more of them than one read brings.
        self._queued.append(request)
        if self._transport is not None:
            self._transport.pause_reading()

    # Requests ----------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        self._request = request
        self._began = self._ended = self._chunked = self._empty = False
        if self.task is None:
            self.task = self.loop.create_task(self._serve())
        elif self._asked is not None:
            self._asked.set_result(None)
            self._asked = None

    async def _serve(self) -> None:
        """All requests, one after the other. Who leaves while one is served cancels
        that; who leaves in between, this."""
        try:
            while not self.gone:
                if self._request is not None:
                    await self._site.serve(self._request, self)
                else:
                    self._asked = self.loop.create_future()
                    await self._asked
        except asyncio.CancelledError:
            if not self.gone:
                raise
        finally:
            self.task = None

    def over(self) -> None:
        """The request was served. An answer that is not whole breaks the
        connection: a part must not pass for the whole."""
        request, self._request = self._request, None
        self.on_drain = None
        if request is not None and request.held:
            self._give_back(request)
        if self.gone or self._transport is None:
            return
        if not self._ended:
            self.abort()
        elif request is None or not request.keep_alive:
            self._close()
        elif self._queued:
            self._begin(self._queued.popleft())
            if not self._queued:
                self._transport.resume_reading()
        else:
            self.since = self.loop.time()

    def _close(self) -> None:
        assert self._transport is not None
        if self._deaf:
            # Its sender may be busy yet; `check` ends it.
            self._transport.resume_reading()
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self.since = self.loop.time()
        else:
            self.hang_up()

    def _refuse(self, problem: Problem) -> None:
        """Answer with `problem`, and hear no more of this client."""
        if self._deaf:
            return
        self._deaf, self._in_head = True, False
        self._body_bytes = 0
        self._pieces = []
        self._site.room.let_go(self._held)
        self._held = 0
        self.since = self.loop.time()
        request = self._incoming or Request("", b"/", [])
        request.problem, request.keep_alive = problem, False
        self._incoming = None
        self._take(request)

    def _open_socket(self, request: Request, rest: bytes) -> None:
        transport = self._transport
        if transport is None or self._request is not None:
            self._refuse(errors.bad_request())
            return
        self.gone = True
        self._site.left(self)
        transport.pause_reading()  # until the socket takes over
        self._site.upgrade(request, transport, rest)

    def _leave(self) -> None:
        """The client is gone: nobody waits for what is under way."""
        if self.gone:
            return
        self.gone = True
        self._site.left(self)
        self._site.room.let_go(self._held)
        self._held = 0
        for request in (self._request, *self._queued):
            if request is not None:
                self._give_back(request)
        self._queued.clear()
        self._stir()
        if self.task is not None:
            self._asked = None
            self.task.cancel()

    def _give_back(self, request: Request) -> None:
        """The room that its body took."""
        self._site.room.let_go(request.held)
        request.held = 0

    # Answers -----------------------------------------------------------------

    def begin(self, status: int, headers: list[Header], ours: bytes) -> bytes:
        """The head of an upstream's answer, to be passed to `send` in front of the
        first piece. `ours` are header lines."""
        request = self._request
        assert request is not None
        self._empty = framing.bodiless(request.method, status)
        lines = b""
        if not self._empty and not _has_length(headers):
            self._chunked = not request.http_1_0
            request.keep_alive = request.keep_alive and self._chunked
            lines = framing.CHUNKED if self._chunked else b""
        lines += self._persistence(request)
        return framing.relayed_head(status, headers, ours, lines)

    def _persistence(self, request: Request) -> bytes:
        """What the client is told of the connection, and may rely on; and what its
        browser is told."""
        if self._site.draining:
            request.keep_alive = False
        if not request.keep_alive:
            return framing.CLOSE + request.cors
        return framing.KEEP_ALIVE + request.cors if request.http_1_0 else request.cors

    def send(self, head: bytes, data: bytes, *, last: bool) -> None:
        """Write a piece of the answer's body; `head` is what `begin` gave, once."""
        self._began, self._ended = True, last
        if self._empty:
            data = b""
        elif self._chunked:
            if data:
                data = framing.chunk(data)
            if last:
                data += framing.LAST_CHUNK
        if len(data) > framing.WHOLE_WRITE:
            if head:
                self._write(head)
            self._write(data)
        elif head or data:
            self._write(head + data)

    def send_whole(
        self, status: int, headers: list[Header], body: bytes, ours: bytes = b""
    ) -> None:
        """Write an answer of our own, or one of which all is known."""
        request = self._request
        assert request is not None
        framed = [header for header in headers if header[0] != b"content-length"]
        if status not in (204, 304):
            framed.append((b"content-length", b"%d" % len(body)))
        head = framing.own_head(status, framed, ours + self._persistence(request))
        self._empty = framing.bodiless(request.method, status)
        self.send(head, body, last=True)

    @property
    def began(self) -> bool:
        """Has the client got something of an answer?"""
        return self._began

    async def drained(self) -> None:
        """Returns when the client has read enough, or left."""
        while self.paused and not self.gone:
            if self._drained is None:
                self._drained = self.loop.create_future()
            await asyncio.shield(self._drained)

    def _stir(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self.gone:
            self._transport.write(data)

    # Ends --------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        busy = self._request is not None or self._incoming is not None
        return not (busy or self._in_head or self._deaf or self._leaving)

    def abort(self) -> None:
        """Break the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def hang_up(self) -> None:
        """Close a connection that is idle, once the client has read its answer."""
        if self._transport is not None and not self._leaving:
            self._leaving, self.since = True, self.loop.time()
            self._transport.close()

    def check(self, now: float) -> None:
        """End what takes too long, but for a request that is served: its own
        deadlines count."""
        waited = now - self.since
        if self._request is not None:
            return
        if self._deaf or self._leaving:
            if waited > DEAF_S:
                self.abort()
        elif self._incoming is not None:
            self._check_body(now)
        elif self._in_head:
            if waited > self._site.times.head_s:
                self._refuse(errors.head_stalled(self._site.times.head_s))
        elif waited > self._site.times.keep_alive_s:
            self.hang_up()

    def _check_body(self, now: float) -> None:
        limit = self._site.times.body_s
        if self._body_bytes - self._body_looked >= BODY_STEP:
            self._body_looked, self.since = self._body_bytes, now
        elif now - self.since > limit:
            self._refuse(errors.body_stalled(limit))


def _has_length(headers: list[Header]) -> bool:
    for name, _ in headers:  # noqa: SIM110 - any() costs thrice as much
        if name == b"content-length":
            return True
    return False
