"""A client's WebSocket (RFC 6455), by the sans-IO half of `websockets`. To the
rest of the gateway it speaks in the messages of ASGI."""

import asyncio
from collections import deque
from typing import Any

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as Handshake
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from libs.common.headers import Header
from services.gateway.server import framing
from services.gateway.server.body_memory import SMALL, Room
from services.gateway.server.request import Request

MOST_WAITING = 1_048_576  # bytes of messages nobody has taken yet
MESSAGE_WEIGHT = 512  # bytes of memory that an empty one takes
MOST_UNREAD = 1_048_576  # bytes a client has not read, before it is not heard
STEP = 16_384  # bytes looked at before it is asked again whether it is enough
MOST_IN_A_ROW = 64  # messages, before others have their turn
CLOSE_S = 5.0  # for the client to answer a close
INVALID = 1007
NO_ROOM = 1013
_HANDSHAKE = (b"connection", b"host", b"sec-websocket-", b"upgrade")


class ClientSocket(asyncio.Protocol):
    """One socket, from its upgrade to its end. `receive` and `send` are ASGI's,
    for one task each."""

    def __init__(
        self,
        request: Request,
        transport: asyncio.Transport,
        largest: int,
        room: Room,
    ) -> None:
        """`largest`: bytes of a message. Large ones take `room` while they come."""
        self._room = room
        self._held = 0  # bytes of the message under way
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._socket = ServerProtocol(max_size=largest)
        head = _head(request)
        if head.isascii():  # other bytes break the library's own refusal of them
            self._socket.receive_data(head)
        self._response = self._answer()
        self._messages: deque[tuple[dict[str, Any], int]] = deque()  # and their weight
        self._waiting_bytes = 0
        self._unread = bytearray()  # off the wire, and not looked at yet
        self._parts = bytearray()  # of a message in fragments
        self._text = False
        self._in_a_row = 0  # messages given without a wait
        self._taken: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = self._over = False
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def take_over(self, rest: bytes) -> None:
        """The connection is a socket's from now on. `rest` came with the upgrade."""
        self._transport.set_protocol(self)
        if not self._transport.is_closing():
            self._transport.resume_reading()
        if rest:
            self.data_received(rest)

    def _answer(self) -> Response | None:
        events = self._socket.events_received()
        if not events or not isinstance(events[0], Handshake):
            return None
        try:
            response = self._socket.accept(events[0])
        except UnicodeError:  # the library quotes the bad header in its refusal
            return None
        return response if response.status_code == 101 else None

    @property
    def valid(self) -> bool:
        """Was the upgrade as RFC 6455 has it?"""
        return self._response is not None

    def refuse(self, status: int, headers: list[Header], body: bytes) -> None:
        """Answer the upgrade with something else than a socket."""
        framed = [h for h in headers if h[0] != b"content-length"]
        framed.append((b"content-length", b"%d" % len(body)))
        head = framing.own_head(status, framed, framing.CLOSE)
        self._over = True
        self._give_back()
        self._transport.write(head + body)
        self._transport.close()
        self._end_soon()

    # ASGI --------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        if self._in_a_row >= MOST_IN_A_ROW:
            self._in_a_row = 0
            await asyncio.sleep(0)
        self._in_a_row += 1
        while not self._messages:
            self._in_a_row = 0
            self._taken = self._loop.create_future()
            await self._taken
        message, weight = self._messages.popleft()
        self._waiting_bytes -= weight
        self._hear()
        return message

    async def send(self, message: dict[str, Any]) -> None:
        """Returns when the client has read enough for more. After its end a socket
        takes no messages, and says nothing of it."""
        if not self._over:
            _SENDS[message["type"]](self, message)
        while self._paused and not self._over:
            self._drained = self._drained or self._loop.create_future()
            await asyncio.shield(self._drained)

    def _accept(self, _: dict[str, Any]) -> None:
        if self._response is not None:
            self._socket.send_response(self._response)
            self._flush()

    def _send_message(self, message: dict[str, Any]) -> None:
        text = message.get("text")
        try:
            if text is None:
                self._socket.send_binary(message["bytes"])
            else:
                self._socket.send_text(text.encode())
        except InvalidState:
            return  # it is closing
        self._flush()

    def _close(self, message: dict[str, Any]) -> None:
        if self._socket.state is State.OPEN:
            reason = message.get("reason") or ""
            self._socket.send_close(message.get("code", 1000), reason[:100])
            self._flush()
        else:
            self._transport.close()
        self._end_soon()

    def _end_soon(self) -> None:
        """However a socket ends: its client may not read, nor answer a close."""
        self._loop.call_later(CLOSE_S, self._transport.abort)

    # asyncio.Protocol --------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if len(data) <= STEP and not self._unread:
            self._socket.receive_data(data)
            self._take_events()
        else:
            self._unread += data
            self._read_on()

    def _weigh(self, size: int) -> None:
        """Take room for a message under way, if it is large; without it the socket
        ends."""
        size = size if size > SMALL else 0
        if self._room.hold(size - self._held):
            self._held = size
            return
        self._socket.fail(NO_ROOM, "too many large messages at a time; try again later")
        self._parts.clear()
        self._end(NO_ROOM)

    def _give_back(self) -> None:
        self._room.let_go(self._held)
        self._held = 0

    def _read_on(self) -> None:
        """Take what was read step by step: one read may bring 40,000 empty frames, and
        each weighs a hundred times what it is on the wire."""
        while self._unread and not self._full:
            step = bytes(self._unread[:STEP])
            del self._unread[:STEP]
            self._socket.receive_data(step)
            self._take_events()

    def eof_received(self) -> bool:
        self._socket.receive_data(bytes(self._unread))
        self._unread.clear()
        self._socket.receive_eof()
        self._take_events()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(self._socket.close_code if self._socket.close_rcvd else None)
        if not self.closed.done():
            self.closed.set_result(None)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._hear()
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    # Frames ------------------------------------------------------------------

    def _take_events(self) -> None:
        for event in self._socket.events_received():
            if isinstance(event, Frame):
                self._take_frame(event)
        # In fragments, and of a frame that is not whole yet.
        size = len(self._parts) + len(self._socket.reader.buffer)
        if (size > SMALL or self._held) and not self._over:
            self._weigh(size)
        self._flush()
        if self._full:
            self._transport.pause_reading()

    @property
    def _full(self) -> bool:
        """Is there enough for now? Pings are answered, and who does not read the
        answers could send for ever."""
        unsent = self._transport.get_write_buffer_size()
        return self._waiting_bytes > MOST_WAITING or unsent > MOST_UNREAD

    def _hear(self) -> None:
        """Read on, if the client was too fast before."""
        if self._waiting_bytes > MOST_WAITING or self._transport.is_closing():
            return
        self._read_on()
        if not self._full:
            self._transport.resume_reading()

    def _take_frame(self, frame: Frame) -> None:
        if self._over:
            return  # it came with the one that ended the socket
        if frame.opcode is Opcode.CLOSE:
            received = self._socket.close_rcvd
            self._end(received.code if received else None)
            return
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return  # pings are answered by the library
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        self._parts += frame.data
        if frame.fin:
            whole, self._parts = bytes(self._parts), bytearray()
            self._put(whole)

    def _put(self, whole: bytes) -> None:
        try:
            content = {"text": whole.decode()} if self._text else {"bytes": whole}
        except UnicodeDecodeError:
            self._socket.fail(INVALID, "invalid UTF-8")
            self._end(INVALID)
            return
        weight = MESSAGE_WEIGHT + len(whole)
        self._waiting_bytes += weight
        self._wake({"type": "websocket.receive", **content}, weight)

    def _end(self, code: int | None) -> None:
        """It is over, for whoever reads and whoever writes."""
        if self._over:
            return
        self._over = True
        self._give_back()
        self._wake({"type": "websocket.disconnect", "code": code or 1006})
        self._end_soon()
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def _wake(self, message: dict[str, Any], size: int = 0) -> None:
        self._messages.append((message, size))
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)

    def _flush(self) -> None:
        for data in self._socket.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()  # the protocol's end of the stream
        if self._socket.close_sent and not self._socket.close_rcvd:
            # Too large a message, or nonsense: the library has failed the socket.
            self._end(self._socket.close_sent.code)


_SENDS = {
    "websocket.accept": ClientSocket._accept,
    "websocket.send": ClientSocket._send_message,
    "websocket.close": ClientSocket._close,
}


def _head(request: Request) -> bytes:
    """What the library wants to know of the upgrade. Of the rest it would refuse
    what is longer than it likes."""
    lines = [b"GET / HTTP/1.1"]
    lines += [b"%b: %b" % h for h in request.headers if h[0].startswith(_HANDSHAKE)]
    return b"\r\n".join([*lines, b"", b""])
