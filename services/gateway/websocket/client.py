"""The client side of a WebSocket (RFC 6455), on the sans-IO protocol of the
`websockets` library."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from libs.common.headers import Header
from services.gateway.server import framing
from services.gateway.server.body_memory import SMALL, Room
from services.gateway.server.request import Request
from services.gateway.websocket.frames import Message

MAX_QUEUED_BYTES = 1_048_576  # of messages that `receive` has not returned yet
MESSAGE_OVERHEAD = 512  # bytes of memory that an empty message takes
MAX_UNSENT_BYTES = 1_048_576  # in the write buffer, before reading stops
READ_STEP = 16_384  # bytes parsed between two checks of these limits
MAX_BURST = 64  # messages returned in a row, before other tasks run
CLOSE_TIMEOUT_S = 5.0  # for the client to answer a close frame
_HANDSHAKE = (b"connection", b"host", b"sec-websocket-", b"upgrade")


class Closed(NamedTuple):
    """The socket ended. `code` is that of the close frame (RFC 6455 section 7.4),
    1006 without one."""

    code: int


class ClientSocket(asyncio.Protocol):
    """One socket, from its upgrade request to the end of its connection.

    Only one task may call `receive`; several may call `send`.

    The state is CONNECTING until the upgrade is accepted, CLOSING once no more
    messages are exchanged, whichever side ended the socket, and CLOSED when the
    connection is gone.
    """

    def __init__(
        self,
        request: Request,
        transport: asyncio.Transport,
        max_message_bytes: int,
        room: Room,
    ) -> None:
        """Incomplete large messages reserve memory in `room`."""
        self.state = State.CONNECTING
        self._room = room
        self._reserved = 0  # bytes in `room`, for the incomplete message
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._protocol = ServerProtocol(max_size=max_message_bytes)
        head = _head(request)
        if head.isascii():  # the library fails on other bytes instead of refusing them
            self._protocol.receive_data(head)
        self._response = self._handshake()
        self._messages: deque[tuple[Message | Closed, int]] = deque()  # with weights
        self._queued_bytes = 0
        self._unparsed = bytearray()
        self._fragments = bytearray()  # of the incomplete message
        self._text = False  # its type
        self._burst = 0  # messages returned without waiting
        self._arrival: asyncio.Future[None] | None = None
        self._paused = False  # the write buffer is full
        self._spoke = True  # a message was sent since the last `keep_alive`
        self._drained: asyncio.Future[None] | None = None  # what `send` waits for
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def peer(self) -> object:
        """The client's address, as transports give it."""
        return self._transport.get_extra_info("peername")

    def take_over(self, rest: bytes) -> None:
        """Receive the connection's data from now on. `rest` came with the upgrade."""
        self._transport.set_protocol(self)
        if not self._transport.is_closing():
            self._transport.resume_reading()
        if rest:
            self.data_received(rest)

    def _handshake(self) -> Response | None:
        events = self._protocol.events_received()
        if not events or not isinstance(events[0], Handshake):
            return None
        response = self._protocol.accept(events[0])
        return response if response.status_code == 101 else None

    @property
    def valid(self) -> bool:
        """Whether the upgrade request conforms to RFC 6455."""
        return self._response is not None

    @property
    def stalled(self) -> bool:
        """Whether a `send` waits for the client to read."""
        return self._drained is not None

    def refuse(self, status: int, headers: list[Header], body: bytes) -> None:
        """Answer the upgrade request with an HTTP response and close."""
        framed = [h for h in headers if h[0] != b"content-length"]
        framed.append((b"content-length", b"%d" % len(body)))
        head = framing.own_head(status, framed, framing.CLOSE)
        self.state = State.CLOSING
        self._free_room()
        self._transport.write(head + body)
        self._transport.close()
        self._abort_later()

    # Messages ----------------------------------------------------------------

    def accept(self, headers: Sequence[Header] = ()) -> None:
        """Answer the upgrade request with 101 and these headers. Does nothing if it was
        invalid."""
        if self._response is not None and self.state is State.CONNECTING:
            for name, value in headers:
                self._response.headers[name.decode("latin-1")] = value.decode("latin-1")
            self._protocol.send_response(self._response)
            self.state = State.OPEN
            self._flush()

    async def receive(self) -> Message | Closed:
        """Return the next message; after the last one `Closed`, once."""
        if self._burst >= MAX_BURST:
            self._burst = 0
            await asyncio.sleep(0)
        self._burst += 1
        while not self._messages:
            self._burst = 0
            self._arrival = self._loop.create_future()
            await self._arrival
        message, weight = self._messages.popleft()
        self._queued_bytes -= weight
        self._resume()
        return message

    async def send(self, message: Message) -> None:
        """Send a message and wait while the write buffer is full. Does nothing
        unless the socket is open."""
        self.write(message)
        while self._paused and self.state is State.OPEN:
            self._drained = self._drained or self._loop.create_future()
            await asyncio.shield(self._drained)

    def write(self, message: Message) -> None:
        """Send a small message, however full the write buffer is."""
        if self.state is State.OPEN:
            self._spoke = True
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
            self._flush()

    def keep_alive(self) -> None:
        """Send a ping if no message was sent since the last call."""
        spoke, self._spoke = self._spoke, False
        if not spoke and self.state is State.OPEN and not self._paused:
            self._protocol.send_ping(b"")
            self._flush()

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake. Closes the connection if the upgrade was not
        accepted yet. Does nothing if the socket ended before."""
        if self.state is State.OPEN:
            self._protocol.send_close(code, reason[:100])
            self._flush()
        elif self.state is State.CONNECTING:
            self._transport.close()
            self._end(CloseCode.ABNORMAL_CLOSURE)

    # asyncio.Protocol --------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if len(data) <= READ_STEP and not self._unparsed:
            self._protocol.receive_data(data)
            self._process_events()
        else:
            self._unparsed += data
            self._parse()

    def eof_received(self) -> bool:
        self._protocol.receive_data(bytes(self._unparsed))
        self._unparsed.clear()
        self._protocol.receive_eof()
        self._process_events()
        self._end(CloseCode.ABNORMAL_CLOSURE)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(CloseCode.ABNORMAL_CLOSURE)
        self.state = State.CLOSED
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._resume()
        self._wake_senders()

    # Frames ------------------------------------------------------------------

    def _parse(self) -> None:
        """Parse in steps: one read may hold 40,000 empty frames, each of which takes
        a hundred times its size on the wire."""
        while self._unparsed and not self._overloaded:
            step = bytes(self._unparsed[:READ_STEP])
            del self._unparsed[:READ_STEP]
            self._protocol.receive_data(step)
            self._process_events()

    def _process_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._process_frame(event)
        # Fragments, and the frame that has not arrived in full.
        size = len(self._fragments) + len(self._protocol.reader.buffer)
        if (size > SMALL or self._reserved) and not self._ended:
            self._reserve(size)
        self._flush()
        if self._overloaded:
            self._transport.pause_reading()

    def _process_frame(self, frame: Frame) -> None:
        if self._ended:
            return  # it arrived together with the frame that ended the socket
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return  # the library answers control frames; see `_flush` for a close
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        self._fragments += frame.data
        if frame.fin:
            data, self._fragments = bytes(self._fragments), bytearray()
            self._queue(data)

    def _queue(self, data: bytes) -> None:
        try:
            message = data.decode() if self._text else data
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "invalid UTF-8")
            return
        weight = MESSAGE_OVERHEAD + len(data)
        self._queued_bytes += weight
        self._put(message, weight)

    def _put(self, message: Message | Closed, weight: int) -> None:
        self._messages.append((message, weight))
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()  # the library's mark for the end of the stream
        sent = self._protocol.close_sent
        if sent is not None:  # ours, an echo of the client's, or for an invalid frame
            self._end(sent.code)

    # Limits ------------------------------------------------------------------

    @property
    def _overloaded(self) -> bool:
        """Whether to stop reading. The write buffer counts because a client that
        does not read the answers to its pings could make it grow forever."""
        unsent = self._transport.get_write_buffer_size()
        return self._queued_bytes > MAX_QUEUED_BYTES or unsent > MAX_UNSENT_BYTES

    def _resume(self) -> None:
        """Read on if `_overloaded` stopped it and no longer holds."""
        if self._queued_bytes > MAX_QUEUED_BYTES or self._transport.is_closing():
            return
        self._parse()
        if not self._overloaded:
            self._transport.resume_reading()

    def _reserve(self, size: int) -> None:
        """Reserve memory for the incomplete message if it is large. Fails the socket
        if there is none."""
        size = size if size > SMALL else 0
        if self._room.hold(size - self._reserved):
            self._reserved = size
            return
        reason = "too many large messages at a time; try again later"
        self._fail(CloseCode.TRY_AGAIN_LATER, reason)
        self._fragments.clear()

    def _free_room(self) -> None:
        self._room.let_go(self._reserved)
        self._reserved = 0

    # Ends --------------------------------------------------------------------

    @property
    def _ended(self) -> bool:
        return self.state >= State.CLOSING

    def _fail(self, code: CloseCode, reason: str) -> None:
        self._protocol.fail(code, reason)
        self._end(code)

    def _end(self, code: int) -> None:
        """Queue `Closed` and release everything. Only the first call counts."""
        if self._ended:
            return
        self.state = State.CLOSING
        self._free_room()
        self._put(Closed(code), 0)
        self._abort_later()
        self._wake_senders()

    def _wake_senders(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def _abort_later(self) -> None:
        """A client may neither read nor answer a close frame."""
        self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)


def _head(request: Request) -> bytes:
    """The head of the upgrade request, for the library: only headers of the handshake,
    because it rejects the request if any header exceeds its limits."""
    lines = [b"GET / HTTP/1.1"]
    lines += [b"%b: %b" % h for h in request.headers if h[0].startswith(_HANDSHAKE)]
    return b"\r\n".join([*lines, b"", b""])
