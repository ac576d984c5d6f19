"""Drives a client's socket with bytes only: upgrade, messages, limits and ends."""

import asyncio

import pytest
from hypothesis import given, settings
from websockets.frames import CloseCode, Opcode
from websockets.protocol import State

from libs.common.headers import Header
from services.gateway.server.body_memory import SMALL, Room
from services.gateway.server.request import Request
from services.gateway.websocket.client import (
    CLOSE_TIMEOUT_S,
    MAX_BURST,
    MAX_QUEUED_BYTES,
    MAX_UNSENT_BYTES,
    MESSAGE_OVERHEAD,
    READ_STEP,
    ClientSocket,
    Closed,
)
from services.gateway.websocket.frames import Message
from tests.support.clients.websocket_peer import Peer
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.transports import Wire, cut_at, cut_in_two, cuts

LARGEST = 100_000


class Talk:
    """A socket, its transport and its client."""

    def __init__(self, room_bytes: int = LARGEST) -> None:
        self.peer = Peer()
        self.wire = Wire()
        self.room = Room(room_bytes)
        self.socket = ClientSocket(self.peer.request(), self.wire, LARGEST, self.room)
        self.wire.pause_reading()
        self.socket.take_over(b"")

    @classmethod
    def opened(cls, room_bytes: int = LARGEST) -> "Talk":
        talk = cls(room_bytes)
        talk.socket.accept()
        talk.peer.hears(talk.wire.take())
        return talk

    def sends_text(self, text: str) -> None:
        self.peer.protocol.send_text(text.encode())
        self.wire.feed(self.peer.sends())

    def hears(self) -> list[tuple[Opcode, bytes]]:
        frames = self.peer.hears(self.wire.take())
        return [(frame.opcode, bytes(frame.data)) for frame in frames]

    async def next(self) -> Message | Closed:
        async with asyncio.timeout(60):
            return await self.socket.receive()


async def received(talk: Talk, count: int) -> list[Message | Closed]:
    return [await talk.next() for _ in range(count)]


# Upgrades ----------------------------------------------------------------------


@timeless
async def test_an_upgrade_is_accepted() -> None:
    talk = Talk()
    assert talk.socket.valid
    assert talk.wire.reading
    assert talk.wire.get_protocol() is talk.socket
    talk.socket.accept()
    talk.peer.hears(talk.wire.take())
    assert talk.peer.answer is not None
    assert talk.peer.answer.status_code == 101
    assert talk.peer.protocol.handshake_exc is None


def without(name: bytes) -> list[Header]:
    return [header for header in Peer().request().headers if header[0] != name]


@pytest.mark.parametrize(
    ("headers", "valid"),
    [
        pytest.param(without(b"sec-websocket-key"), False, id="no key"),
        pytest.param(without(b"sec-websocket-version"), False, id="no version"),
        pytest.param(without(b"upgrade"), False, id="no upgrade"),
        pytest.param(
            [*without(b""), (b"x", b"y" * 9000)], True, id="other header, long"
        ),
        pytest.param(
            [*without(b""), (b"x", b"\xff")], True, id="other header, not ASCII"
        ),
        pytest.param(
            [*without(b""), (b"sec-websocket-protocol", b"y" * 9000)], False, id="long"
        ),
    ],
)
@timeless
async def test_only_the_headers_of_the_handshake_are_validated(
    headers: list[Header], valid: bool
) -> None:
    request = Request("GET", b"/v1/responses", headers)
    wire = Wire()
    socket = ClientSocket(request, wire, LARGEST, Room(LARGEST))
    assert socket.valid is valid
    socket.accept()
    assert bool(wire.sent) is valid


@pytest.mark.parametrize(
    "name",
    [b"connection", b"upgrade", b"sec-websocket-key",
     b"sec-websocket-protocol", b"sec-websocket-version"],
)  # fmt: skip
@timeless
async def test_an_upgrade_that_is_not_ascii_is_invalid(
    name: bytes,
) -> None:
    headers = [*without(name), (name, b"\xff")]
    request = Request("GET", b"/v1/responses", headers)
    assert not ClientSocket(request, Wire(), LARGEST, Room(LARGEST)).valid


@timeless
async def test_a_refusal_is_an_http_response_and_closes_the_connection() -> None:
    talk = Talk()
    headers = [(b"x", b"y"), (b"content-length", b"99")]
    talk.socket.refuse(426, headers, b"no")
    assert talk.wire.sent == (
        b"HTTP/1.1 426 Upgrade Required\r\nx: y\r\ncontent-length: 2\r\n"
        b"connection: close\r\n\r\nno"
    )
    assert talk.wire.closed
    await asyncio.sleep(CLOSE_TIMEOUT_S)
    assert talk.wire.aborted
    await talk.socket.send("late")


@timeless
async def test_a_connection_that_is_closing_is_not_read() -> None:
    wire = Wire()
    socket = ClientSocket(Peer().request(), wire, LARGEST, Room(LARGEST))
    wire.pause_reading()
    wire.abort()
    socket.take_over(b"")
    assert not wire.reading


# Messages ----------------------------------------------------------------------


def frames_of(peer: Peer) -> bytes:
    """Text, binary, fragments with a ping between them, and an empty text."""
    protocol = peer.protocol
    protocol.send_text("grüße".encode())
    protocol.send_binary(b"\x00\xff")
    protocol.send_text(b"in ", fin=False)
    protocol.send_ping(b"there?")
    protocol.send_continuation("drei Stücken".encode()[:7], fin=False)
    protocol.send_continuation("drei Stücken".encode()[7:], fin=True)
    protocol.send_text(b"")
    return peer.sends()


MESSAGES = [
    "grüße",
    b"\x00\xff",
    "in drei Stücken",
    "",
]


async def check_messages(talk: Talk, pieces: list[bytes]) -> None:
    talk.wire.feed(*pieces)
    assert await received(talk, len(MESSAGES)) == MESSAGES
    assert talk.hears() == [(Opcode.PONG, b"there?")]


@timeless
async def test_messages_do_not_depend_on_where_reads_end() -> None:
    length = len(frames_of(Talk.opened().peer))
    for position in range(1, length):
        talk = Talk.opened()
        sent = frames_of(talk.peer)
        await check_messages(talk, [sent[:position], sent[position:]])


@settings(max_examples=30, deadline=None)
@given(positions=cuts(80))
def test_messages_do_not_depend_on_the_number_of_reads(positions: list[int]) -> None:
    @timeless
    async def run() -> None:
        talk = Talk.opened()
        await check_messages(talk, cut_at(frames_of(talk.peer), positions))

    run()


@timeless
async def test_frames_that_follow_the_upgrade_in_one_read_are_parsed() -> None:
    peer = Peer()
    request = peer.request()
    wire = Wire()
    talk = ClientSocket(request, wire, LARGEST, Room(LARGEST))
    talk.accept()
    peer.hears(wire.take())
    peer.protocol.send_text(b"early")
    talk.take_over(peer.sends())
    assert await talk.receive() == "early"


@timeless
async def test_strings_are_sent_as_text_and_bytes_as_binary() -> None:
    talk = Talk.opened()
    await talk.socket.send("grüße")
    await talk.socket.send(b"\x00")
    assert talk.hears() == [(Opcode.TEXT, "grüße".encode()), (Opcode.BINARY, b"\x00")]


@timeless
async def test_receive_waits_for_a_message() -> None:
    talk = Talk.opened()
    reading = asyncio.ensure_future(talk.socket.receive())
    await settled()
    assert not reading.done()
    talk.sends_text("now")
    assert await reading == "now"


# Limits ------------------------------------------------------------------------


@timeless
async def test_reading_stops_while_too_many_bytes_are_queued() -> None:
    talk = Talk.opened()
    count = MAX_QUEUED_BYTES // (MESSAGE_OVERHEAD + 1000) + 1
    for _ in range(count):
        talk.sends_text("x" * 1000)
    reading = [talk.wire.reading]
    await talk.next()
    reading.append(talk.wire.reading)
    assert reading == [False, True]
    await received(talk, count - 1)


@timeless
async def test_empty_messages_count_and_none_is_lost() -> None:
    talk = Talk.opened()
    count = 2 * MAX_QUEUED_BYTES // MESSAGE_OVERHEAD
    for _ in range(count):
        talk.peer.protocol.send_text(b"")
    frames = talk.peer.sends()
    assert len(frames) > READ_STEP
    talk.wire.feed(frames)
    reading = [talk.wire.reading]
    talk.peer.protocol.send_text(b"last")
    talk.wire.feed(talk.peer.sends())
    messages = await received(talk, count + 1)
    assert messages[-1] == "last"
    reading.append(talk.wire.reading)
    assert reading == [False, True]


@timeless
async def test_reading_stops_while_the_client_does_not_read() -> None:
    talk = Talk.opened()
    talk.wire.unsent = MAX_UNSENT_BYTES + 1
    talk.peer.protocol.send_ping(b"x")
    talk.wire.feed(talk.peer.sends())
    reading = [talk.wire.reading]
    talk.wire.unsent = 0
    talk.socket.pause_writing()
    talk.socket.resume_writing()
    reading.append(talk.wire.reading)
    assert reading == [False, True]


@timeless
async def test_send_waits_while_the_write_buffer_is_full() -> None:
    talk = Talk.opened()
    talk.socket.pause_writing()
    message = "x"
    sending = asyncio.gather(talk.socket.send(message), talk.socket.send(message))
    await settled()
    assert not sending.done()
    talk.socket.resume_writing()
    await sending
    assert len(talk.hears()) == 2


@timeless
async def test_send_returns_when_a_slow_client_disconnects() -> None:
    talk = Talk.opened()
    talk.socket.pause_writing()
    sending = asyncio.ensure_future(talk.socket.send("x"))
    await settled()
    talk.wire.hangs_up()
    await sending
    assert await talk.next() == Closed(1006)


@pytest.mark.parametrize(
    ("opcode", "data", "code"),
    [
        pytest.param(Opcode.BINARY, bytes(LARGEST + 1), 1009, id="too large"),
        pytest.param(Opcode.TEXT, b"\xff\xfe", CloseCode.INVALID_DATA, id="not UTF-8"),
        pytest.param(Opcode.CONT, b"x", 1002, id="continuation of nothing"),
    ],
)
@timeless
async def test_an_invalid_frame_closes_the_socket_with_its_code(
    opcode: Opcode, data: bytes, code: int
) -> None:
    talk = Talk.opened()
    if opcode is Opcode.TEXT:
        talk.peer.protocol.send_text(data)
    elif opcode is Opcode.BINARY:
        talk.peer.protocol.send_binary(data)
    sent = talk.peer.sends() or b"\x80\x81\x00\x00\x00\x00x"
    talk.wire.feed(sent)
    assert await talk.next() == Closed(code)
    talk.hears()
    received = talk.peer.protocol.close_rcvd
    assert received is not None
    assert received.code == code
    await asyncio.sleep(CLOSE_TIMEOUT_S)
    assert talk.wire.aborted


def fragment(talk: Talk, size: int) -> None:
    """The client sends the first part of a message."""
    talk.peer.protocol.send_text(b"x" * size, fin=False)
    talk.wire.feed(talk.peer.sends())


@timeless
async def test_only_large_incomplete_messages_reserve_memory() -> None:
    talk = Talk.opened()
    fragment(talk, SMALL)
    assert talk.room.held == 0
    talk.peer.protocol.send_continuation(b"y", fin=False)
    talk.wire.feed(talk.peer.sends())
    assert talk.room.held == SMALL + 1
    talk.peer.protocol.send_continuation(b"z", fin=True)
    talk.wire.feed(talk.peer.sends())
    assert talk.room.held == 0
    assert await talk.next() == "x" * SMALL + "yz"


@timeless
async def test_a_large_message_without_memory_closes_the_socket() -> None:
    talk = Talk.opened(room_bytes=SMALL)
    fragment(talk, SMALL + 1)
    assert talk.room.held == 0
    assert await talk.next() == Closed(1013)
    talk.hears()
    received = talk.peer.protocol.close_rcvd
    assert received is not None
    assert (received.code, received.reason) == (
        1013,
        "too many large messages at a time; try again later",
    )


@timeless
async def test_the_end_of_the_socket_frees_reserved_memory() -> None:
    talk = Talk.opened()
    fragment(talk, SMALL + 1)
    talk.wire.hangs_up()
    assert talk.room.held == 0


@timeless
async def test_many_messages_leave_other_tasks_their_turn() -> None:
    talk = Talk.opened()
    for _ in range(MAX_BURST + 1):
        talk.sends_text("")
    turns: list[None] = []
    clock().call_soon(turns.append, None)
    await received(talk, MAX_BURST)
    assert turns == []
    await talk.next()
    assert turns == [None]


@timeless
async def test_reading_does_not_resume_while_the_write_buffer_is_large() -> None:
    talk = Talk.opened()
    talk.sends_text("x")
    talk.wire.unsent = MAX_UNSENT_BYTES + 1
    talk.sends_text("y")
    await received(talk, 2)
    assert not talk.wire.reading


@timeless
async def test_a_closing_connection_does_not_resume_reading() -> None:
    talk = Talk.opened()
    talk.sends_text("x")
    talk.peer.protocol.send_close(1000)
    talk.wire.feed(talk.peer.sends())
    talk.wire.pause_reading()
    await talk.next()
    assert not talk.wire.reading


# Ends --------------------------------------------------------------------------


@timeless
async def test_a_close_of_the_client_is_echoed_and_received() -> None:
    talk = Talk.opened()
    talk.peer.protocol.send_close(1001, "bye")
    talk.wire.feed(talk.peer.sends())
    assert await talk.next() == Closed(1001)
    assert talk.hears()[0][0] is Opcode.CLOSE
    await talk.socket.send("late")
    assert talk.hears() == []
    await asyncio.sleep(CLOSE_TIMEOUT_S)
    assert talk.socket.closed.done()


@timeless
async def test_a_close_without_a_code_is_1005() -> None:
    talk = Talk.opened()
    talk.peer.protocol.send_close()
    talk.wire.feed(talk.peer.sends())
    assert await talk.next() == Closed(1005)


@timeless
async def test_close_sends_code_and_reason() -> None:
    talk = Talk.opened()
    talk.socket.close(1012, "x" * 200)
    talk.hears()
    received = talk.peer.protocol.close_rcvd
    assert received is not None
    assert (received.code, received.reason) == (1012, "x" * 100)
    await talk.socket.send("late")
    talk.wire.feed(talk.peer.sends())  # the client answers
    await settled()
    assert talk.wire.closed


@timeless
async def test_a_close_without_an_answer_aborts_the_connection() -> None:
    talk = Talk.opened()
    talk.socket.close(1000)
    assert not talk.wire.aborted
    await asyncio.sleep(CLOSE_TIMEOUT_S)
    assert talk.wire.aborted


@timeless
async def test_close_before_accept_closes_the_connection() -> None:
    talk = Talk()
    talk.socket.close(1000)
    assert talk.wire.closed
    assert await talk.next() == Closed(1006)


@pytest.mark.parametrize("how", ["hangs up", "half-closes"])
@timeless
async def test_a_lost_connection_is_received_once(how: str) -> None:
    talk = Talk.opened()
    reading = asyncio.ensure_future(talk.next())
    await settled()
    if how == "half-closes":
        assert not talk.socket.eof_received()
    talk.wire.hangs_up()
    assert await reading == Closed(1006)
    assert talk.socket.closed.done()
    again = asyncio.ensure_future(talk.socket.receive())
    await settled()
    assert not again.done()
    again.cancel()


@timeless
async def test_bytes_that_wait_are_parsed_before_the_end() -> None:
    talk = Talk.opened()
    count = 2 * MAX_QUEUED_BYTES // MESSAGE_OVERHEAD
    for _ in range(count):
        talk.peer.protocol.send_text(b"")
    talk.peer.protocol.send_close(1000)
    talk.wire.feed(talk.peer.sends())
    talk.socket.eof_received()
    messages = await received(talk, count + 1)
    assert messages[-1] == Closed(1000)


@timeless
async def test_a_close_does_not_depend_on_where_reads_end() -> None:
    talk = Talk.opened()
    talk.peer.protocol.send_close(1001, "bye")
    sent = talk.peer.sends()
    for first, second in cut_in_two(sent):
        other = Talk.opened()
        other.wire.feed(first, second)
        assert await other.next() == Closed(1001)


@timeless
async def test_the_state_follows_the_socket() -> None:
    talk = Talk()
    states = [talk.socket.state]
    talk.socket.accept()
    states.append(talk.socket.state)
    talk.socket.close(1000)
    states.append(talk.socket.state)
    talk.wire.hangs_up()
    states.append(talk.socket.state)
    talk.wire.hangs_up()
    assert states == [State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED]


@timeless
async def test_a_socket_that_ended_is_neither_accepted_nor_closed_again() -> None:
    talk = Talk()
    talk.wire.hangs_up()
    talk.socket.connection_lost(None)
    talk.socket.accept()
    talk.socket.close(1000)
    assert talk.wire.sent == b""
    assert not talk.wire.closed


@timeless
async def test_frames_after_one_that_ended_the_socket_are_ignored() -> None:
    talk = Talk.opened()
    talk.peer.protocol.send_text(b"\xff")
    talk.peer.protocol.send_text(b"late")
    talk.wire.feed(talk.peer.sends())
    assert await talk.next() == Closed(1007)
    assert not talk.socket._messages


@timeless
async def test_a_close_between_fragments_is_a_protocol_error() -> None:
    talk = Talk.opened()
    talk.peer.protocol.send_text(b"in ", fin=False)
    talk.wire.feed(talk.peer.sends(), b"\x88\x80\0\0\0\0")
    assert await talk.next() == Closed(1002)
    assert talk.wire.closed


# Keepalives --------------------------------------------------------------------


@timeless
async def test_a_silent_socket_gets_a_ping() -> None:
    talk = Talk.opened()
    talk.socket.keep_alive()  # it was opened just now
    assert talk.hears() == []
    talk.socket.keep_alive()
    assert talk.hears() == [(Opcode.PING, b"")]
    await talk.socket.send("x")
    talk.socket.keep_alive()
    assert talk.hears() == [(Opcode.TEXT, b"x")]
    talk.socket.close(1000)
    talk.hears()
    talk.socket.keep_alive()
    talk.socket.keep_alive()
    assert talk.hears() == []


@timeless
async def test_a_client_that_does_not_read_gets_no_pings() -> None:
    talk = Talk.opened()
    talk.socket.pause_writing()
    for _ in range(3):
        talk.socket.keep_alive()
    assert talk.hears() == []
