"""Parses what a client sends into requests: HTTP/1.1 (RFC 9112) on httptools.

Bytes in, requests out. Bounds heads and bodies, and checks framing and `Host`. Knows
no transport, no clock and no response."""

from typing import Any, Final, NoReturn

import httptools

from libs.common.headers import Header
from services.gateway import errors
from services.gateway.errors import Problem
from services.gateway.server import framing, head_fields
from services.gateway.server.body_memory import Room
from services.gateway.server.head_fields import (
    LARGEST_HEAD,
    MOST_HEADERS,
    NAMES,
    HeadFields,
    Known,
)
from services.gateway.server.phases import (
    BODY,
    BODY_CONTINUED,
    HEAD,
    HEAD_CONTINUED,
    IDLE,
    STOPPED,
    UPGRADED,
)
from services.gateway.server.request import Request

MOST_PIECES: Final = 4096  # parts of a body that are kept before they are joined
BODY_STEP: Final = 1024  # a body that grows by fewer bytes makes no progress


_NAMES: Final = NAMES  # a method of an imported name is found more slowly
_METHODS: Final = {b"GET": "GET", b"POST": "POST"}  # others are decoded


class _StopParsing(Exception):
    """Ends a call of httptools from within a callback."""


class RequestParser:
    """Parses one connection's bytes. Complete requests are appended to `requests`.

    A request that is refused is the last one: it is complete at once, and its `problem`
    says why. httptools calls this object itself, which saves a call for each header.
    """

    __slots__ = (
        "_body_bytes", "_body_checked", "_body_seen", "_feed", "_fields", "_headers",
        "_held", "_http", "_incoming", "_keeps_alive", "_largest_body", "_method",
        "_order", "_overhead", "_pieces", "_room", "_small_body", "_target",
        "expects_continue", "phase", "requests", "rest", "upgraded"
    )  # fmt: skip

    def __init__(self, largest_body: int, small_body: int, room: Room) -> None:
        """Bodies have at most `largest_body` bytes; one of more than `small_body`
        takes its size from `room`."""
        self._largest_body, self._small_body = largest_body, small_body
        self._room = room
        self._restart()
        self.phase = IDLE
        self.requests: list[Request] = []  # few, and cheaper than a deque
        self.expects_continue = False  # the client waits for 100 Continue
        self.upgraded: Request | None = None  # the request that opens a WebSocket
        self.rest = b""  # what followed it
        # The head that arrives.
        self._target = b""
        self._headers: list[Header] = []
        self._order: list[Known] = []  # of the names in the last head
        self._fields = HeadFields()
        # The body that arrives; reset when it is complete.
        self._incoming: Request | None = None  # once its head is complete
        self._pieces: list[bytes | bytearray] = []
        self._body_bytes = 0
        self._held = 0  # bytes taken from the room
        # Progress of what takes several reads.
        self._overhead = 0  # bytes of the head; then, since the body last grew
        self._body_seen = 0  # bytes of the body after the last read
        self._body_checked = 0  # bytes of the body when it last made progress

    def _restart(self) -> None:
        self._http: Any = httptools.HttpRequestParser(self)
        self._feed: Any = self._http.feed_data  # bound once, as are the next
        self._method: Any = self._http.get_method
        self._keeps_alive: Any = self._http.should_keep_alive

    def feed(self, data: bytes) -> bool:
        """Parse what one read brought. Returns True when it ends in a head that began
        with it: the time for that head starts now."""
        if len(data) > LARGEST_HEAD:
            return self._feed_slices(data)
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._resume(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._fail()
        return self.phase is not IDLE and self._measure(len(data))

    def _feed_slices(self, data: bytes) -> bool:
        """A head that came complete with one read would not be measured."""
        began = False
        for start in range(0, len(data), LARGEST_HEAD):
            if self.phase is UPGRADED:
                self.rest += data[start:]
                break
            if self.phase is STOPPED:
                break
            began = self.feed(data[start : start + LARGEST_HEAD])
        return began

    def stop(self, problem: Problem) -> None:
        """Refuse the request that arrives, and parse no more."""
        if self.phase is STOPPED:
            return
        self.phase = STOPPED
        request = self._incoming or self.upgraded or Request("", b"/", [])
        request.problem, request.keep_alive = problem, False
        self.requests.append(request)
        self._discard()

    def close(self) -> None:
        """Parse no more, and free what is held at once: the garbage collector, which
        runs rarely, would find the cycle with httptools late."""
        self.phase = STOPPED
        self._discard()
        self._http = self._feed = self._method = self._keeps_alive = None

    def _discard(self) -> None:
        self._incoming = None
        self._headers, self._pieces = [], []
        self._room.let_go(self._held)
        self._held = 0

    def made_progress(self) -> bool:
        """Has the body grown by BODY_STEP bytes since this last returned True? The
        first call for a body always does: its time starts then."""
        if self._body_bytes - self._body_checked < BODY_STEP:
            return False
        self._body_checked = self._body_bytes
        return True

    # Reads that end within a request ------------------------------------------

    def _measure(self, count: int) -> bool:
        """A read of `count` bytes ended in a head or a body. See `feed`."""
        phase = self.phase
        if phase is HEAD:
            self.phase, self._overhead = HEAD_CONTINUED, 0
            return True
        if phase is BODY:
            self.phase, self._overhead = BODY_CONTINUED, 0
            self._body_seen, self._body_checked = self._body_bytes, -BODY_STEP
            self._check_length()
            self._join_pieces()
        elif phase is HEAD_CONTINUED:
            self._overhead += count
        elif phase is BODY_CONTINUED:
            # What is no body (trailers, extensions of chunks) counts until it grows.
            self._overhead += count
            if self._body_bytes > self._body_seen:
                self._body_seen, self._overhead = self._body_bytes, 0
            self._join_pieces()
        if self._overhead > LARGEST_HEAD:
            self.stop(errors.head_too_large(LARGEST_HEAD))
        return False

    def _check_length(self) -> None:
        """Refuse a body that is announced too large. One that came complete with its
        head was measured as it came."""
        request = self._incoming
        if request is None:
            return
        if head_fields.announced_length(request.headers) > self._largest_body:
            self.stop(errors.body_too_large(self._largest_body))

    def _join_pieces(self) -> None:
        """Many small pieces of a body would take far more memory than it has bytes."""
        if len(self._pieces) > MOST_PIECES:
            first, *others = self._pieces
            joined = first if isinstance(first, bytearray) else bytearray(first)
            joined += b"".join(others)
            self._pieces = [joined, b""]

    # Upgrades ----------------------------------------------------------------

    def _resume(self, rest: bytes) -> None:
        """Continue after llhttp stopped in front of `rest`. It stops behind a head
        that asks for another protocol, whatever body that head announces."""
        data = self._after_upgrade(rest)
        while data:
            try:
                self._feed(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._after_upgrade(data[upgrade.args[0] :])
                continue
            except httptools.HttpParserError:
                self._fail()
            return

    def _after_upgrade(self, rest: bytes) -> bytes:
        """What to parse next. A request that is served in HTTP is parsed again without
        its Upgrade header, by a parser that does not stop there."""
        method = self._http.get_method()
        if method == b"CONNECT":
            self.phase = STOPPED  # what follows is a protocol that we do not speak
            return b""
        if self._incoming is not None:
            self.phase, self.rest = UPGRADED, rest
            self.upgraded, self._incoming = self._incoming, None
            return b""
        version = self._http.get_http_version().encode()
        head = framing.without_upgrade(method, self._target, version, self._headers)
        self._restart()
        return head + rest

    def _is_parsed_again(self, request: Request) -> bool:
        """Does llhttp stop, although the request opens no WebSocket as in RFC 6455
        section 4.1? A server may ignore other protocols (RFC 9110 section 7.8)."""
        if request.method == "CONNECT":
            return False
        opens_socket = (
            self._fields.upgrade == b"websocket"
            and request.method == "GET"
            and not (request.http_1_0 or self._fields.transfer_coded)
            and head_fields.announced_length(request.headers) == 0
        )
        return not opens_socket and self._http.should_upgrade()

    def _fail(self) -> None:
        """httptools raised an error: its own, or that of a callback."""
        if self.phase is not STOPPED:
            self.stop(errors.bad_request())

    # httptools ---------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.phase = HEAD
        self._target = b""
        fields = self._fields
        if self._headers:  # trailers, or of a head that is parsed again
            self._headers, fields.lines, fields.told = [], [], []
        fields.host = fields.content_type = None
        if fields.uncommon:
            fields.reset_uncommon()
            self.expects_continue = False

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        headers, order, fields = self._headers, self._order, self._fields
        place = len(headers)
        # Clients send the same names in the same order: a comparison takes a tenth of
        # a look-up, which has to hash the name.
        if place < len(order) and order[place][0] == name:
            found = order[place]
        else:
            found = _NAMES.placed(name, order, place)
        _, name, start, see = found
        headers.append((name, value))
        if start:
            fields.lines.append(start + value)
        if see is not None:
            see(fields, value)

    def on_headers_complete(self) -> None:
        if self.phase is HEAD_CONTINUED or len(self._headers) > MOST_HEADERS:
            self._fields.check_size(self._target, self._headers)
        self.phase = BODY
        http, fields, target = self._http, self._fields, self._target
        if target[:1] != b"/":
            target, self._headers = fields.origin_form(target, self._headers)
        named = self._method()
        # A comparison is sooner than to hash it.
        method = "POST" if named == b"POST" else _METHODS.get(named)
        if method is None:
            method, fields.uncommon = self._method().decode(), True
        request = Request(method, target, self._headers)
        request.content_type = fields.content_type
        request.told, request.lines = fields.told, fields.lines
        # Without a Connection header llhttp keeps a connection alive for HTTP/1.1 and
        # for no other version. Asking for the version itself would format a string.
        if fields.names_connection or not (fields.host and self._keeps_alive()):
            version = http.get_http_version()
            request.http_1_0 = version != "1.1"
            fields.check_version(version)
        if fields.uncommon and self._is_left_out(request):
            return
        self._incoming = request
        self._headers, fields.lines, fields.told = [], [], []  # not for trailers

    def _is_left_out(self, request: Request) -> bool:
        """Apply what few requests have. Returns True for a head that is parsed again;
        stops at a problem."""
        fields = self._fields
        request.coding, request.origin = fields.coding, fields.origin
        request.repeats = fields.repeats
        request.lines = fields.lines if fields.plain else None
        if fields.problem is not None:
            self._incoming = request
            self._refuse(fields.problem)
        if fields.upgrade is not None and self._is_parsed_again(request):
            return True
        self.expects_continue = fields.expects and not request.http_1_0
        return False

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)
        self._body_bytes += len(data)
        if self._body_bytes > self._small_body:
            self._take_room()

    def _take_room(self) -> None:
        if self._body_bytes > self._largest_body:
            self._refuse(errors.body_too_large(self._largest_body))
        if not self._room.hold(self._body_bytes - self._held):
            self._refuse(errors.no_room_for_body())
        self._held = self._body_bytes

    def on_message_complete(self) -> None:
        request = self._incoming
        if request is None:  # it is parsed again
            return
        if self._pieces:
            request.body = b"".join(self._pieces)
            self._pieces = []
            self._body_bytes = 0
            if self._held:
                request.held, self._held = self._held, 0
        request.keep_alive = self._keeps_alive()
        if self._fields.uncommon and self._http.should_upgrade():
            if request.method != "CONNECT":
                return  # httptools raises: it says where the WebSocket begins
            request.keep_alive = False
        self._incoming = None
        self.phase = IDLE
        self.requests.append(request)

    def _refuse(self, problem: Problem) -> NoReturn:
        """Refuse it at once, within a callback."""
        self.stop(problem)
        raise _StopParsing
