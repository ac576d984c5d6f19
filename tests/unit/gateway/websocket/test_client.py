"""A client's WebSocket without a socket: messages in and out however bytes are cut, and
how each end learns of the other's close."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from websockets.frames import Opcode

from libs.common.headers import Header
from services.gateway.server.body_memory import Room
from services.gateway.server.request import Request
from services.gateway.websocket.client import (
    CLOSE_S,
    INVALID,
    MESSAGE_WEIGHT,
    MOST_UNREAD,
    MOST_WAITING,
    STEP,
    ClientSocket,
)
from tests.support.clients.websocket_peer import Peer
from tests.support.memory.clock import settled, timeless
from tests.support.memory.transports import Wire, cut_at, cut_in_two, cuts

LARGEST = 100_000


class Talk:
    """A socket, its wire, and the client at the other end."""

    def __init__(self, *, rest: bytes = b"") -> None:
        self.peer = Peer()
        self.wire = Wire()
        self.socket = ClientSocket(
            self.peer.request(), self.wire, LARGEST, Room(LARGEST)
        )
        self.wire.pause_reading()
        self.socket.take_over(rest)

    @classmethod
    async def opened(cls) -> "Talk":
        talk = cls()
        await talk.socket.send({"type": "websocket.accept"})
        talk.peer.hears(talk.wire.take())
        return talk

    def sends_text(self, text: str) -> None:
        self.peer.protocol.send_text(text.encode())
        self.wire.feed(self.peer.sends())

    def hears(self) -> list[tuple[Opcode, bytes]]:
        frames = self.peer.hears(self.wire.take())
        return [(frame.opcode, bytes(frame.data)) for frame in frames]

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(1):
            return await self.socket.receive()


async def received(talk: Talk, count: int) -> list[dict[str, Any]]:
    return [await talk.next() for _ in range(count)]


# Upgrades ----------------------------------------------------------------------


@timeless
async def test_an_upgrade_is_accepted_as_rfc_6455_has_it() -> None:
    talk = Talk()
    assert talk.socket.valid
    assert talk.wire.reading
    assert talk.wire.get_protocol() is talk.socket
    await talk.socket.send({"type": "websocket.accept"})
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
        pytest.param([*without(b""), (b"x", b"y" * 9000)], True, id="another, long"),
        pytest.param([*without(b""), (b"x", b"\xff")], True, id="another, no text"),
        pytest.param(
            [*without(b""), (b"sec-websocket-protocol", b"y" * 9000)], False, id="long"
        ),
    ],
)
@timeless
async def test_an_upgrade_is_judged_by_its_own_headers_only(
    headers: list[Header], valid: bool
) -> None:
    request = Request("GET", b"/v1/responses", headers)
    wire = Wire()
    socket = ClientSocket(request, wire, LARGEST, Room(LARGEST))
    assert socket.valid is valid
    await socket.send({"type": "websocket.accept"})
    assert bool(wire.sent) is valid


@pytest.mark.parametrize(
    "name",
    [b"connection", b"upgrade", b"sec-websocket-key",
     b"sec-websocket-protocol", b"sec-websocket-version"],
)  # fmt: skip
@timeless
async def test_an_upgrade_that_is_no_text_is_invalid_and_raises_nothing(
    name: bytes,
) -> None:
    headers = [*without(name), (name, b"\xff")]
    request = Request("GET", b"/v1/responses", headers)
    assert not ClientSocket(request, Wire(), LARGEST, Room(LARGEST)).valid


@timeless
async def test_a_refusal_is_an_ordinary_answer_and_the_end() -> None:
    talk = Talk()
    headers = [(b"x", b"y"), (b"content-length", b"99")]
    talk.socket.refuse(426, headers, b"no")
    assert talk.wire.sent == (
        b"HTTP/1.1 426 Upgrade Required\r\nx: y\r\ncontent-length: 2\r\n"
        b"connection: close\r\n\r\nno"
    )
    assert talk.wire.closed
    await asyncio.sleep(CLOSE_S)
    assert talk.wire.aborted
    await talk.socket.send({"type": "websocket.send", "text": "late"})


@timeless
async def test_a_client_that_left_before_is_not_read() -> None:
    wire = Wire()
    socket = ClientSocket(Peer().request(), wire, LARGEST, Room(LARGEST))
    wire.pause_reading()
    wire.abort()
    socket.take_over(b"")
    assert not wire.reading


# Messages ----------------------------------------------------------------------


def frames_of(peer: Peer) -> bytes:
    """Text, binary and fragments with a ping between them."""
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
    {"type": "websocket.receive", "text": "grüße"},
    {"type": "websocket.receive", "bytes": b"\x00\xff"},
    {"type": "websocket.receive", "text": "in drei Stücken"},
    {"type": "websocket.receive", "text": ""},
]


async def understood(talk: Talk, pieces: list[bytes]) -> None:
    talk.wire.feed(*pieces)
    assert await received(talk, len(MESSAGES)) == MESSAGES
    assert talk.hears() == [(Opcode.PONG, b"there?")]


@timeless
async def test_messages_are_the_same_wherever_they_are_cut() -> None:
    length = len(frames_of((await Talk.opened()).peer))
    for position in range(1, length):
        talk = await Talk.opened()
        sent = frames_of(talk.peer)
        await understood(talk, [sent[:position], sent[position:]])


@settings(max_examples=30, deadline=None)
@given(positions=cuts(80))
def test_messages_are_the_same_in_any_pieces(positions: list[int]) -> None:
    @timeless
    async def run() -> None:
        talk = await Talk.opened()
        await understood(talk, cut_at(frames_of(talk.peer), positions))

    run()


@timeless
async def test_frames_that_came_with_the_upgrade_are_read() -> None:
    peer = Peer()
    request = peer.request()
    server = ClientSocket(request, Wire(), LARGEST, Room(LARGEST))
    await server.send({"type": "websocket.accept"})
    wire = Wire()
    talk = ClientSocket(request, wire, LARGEST, Room(LARGEST))
    await talk.send({"type": "websocket.accept"})
    peer.hears(wire.take())
    peer.protocol.send_text(b"early")
    talk.take_over(peer.sends())
    assert (await talk.receive())["text"] == "early"


@timeless
async def test_what_is_sent_arrives_as_text_or_binary() -> None:
    talk = await Talk.opened()
    await talk.socket.send({"type": "websocket.send", "text": "grüße"})
    await talk.socket.send({"type": "websocket.send", "bytes": b"\x00"})
    assert talk.hears() == [(Opcode.TEXT, "grüße".encode()), (Opcode.BINARY, b"\x00")]


@timeless
async def test_a_reader_waits_for_a_message() -> None:
    talk = await Talk.opened()
    reading = asyncio.ensure_future(talk.socket.receive())
    await settled()
    assert not reading.done()
    talk.sends_text("now")
    assert (await reading)["text"] == "now"


# Bounds ------------------------------------------------------------------------


@timeless
async def test_a_client_that_sends_faster_than_it_is_served_is_not_read() -> None:
    talk = await Talk.opened()
    count = MOST_WAITING // (MESSAGE_WEIGHT + 1000) + 1
    for _ in range(count):
        talk.sends_text("x" * 1000)
    reading = [talk.wire.reading]
    await talk.next()
    reading.append(talk.wire.reading)
    assert reading == [False, True]
    await received(talk, count - 1)


@timeless
async def test_empty_messages_weigh_as_well_and_none_is_lost() -> None:
    talk = await Talk.opened()
    count = 2 * MOST_WAITING // MESSAGE_WEIGHT
    for _ in range(count):
        talk.peer.protocol.send_text(b"")
    frames = talk.peer.sends()
    assert len(frames) > STEP
    talk.wire.feed(frames)
    reading = [talk.wire.reading]
    talk.peer.protocol.send_text(b"last")
    talk.wire.feed(talk.peer.sends())
    messages = await received(talk, count + 1)
    assert messages[-1]["text"] == "last"
    reading.append(talk.wire.reading)
    assert reading == [False, True]


@timeless
async def test_a_client_that_does_not_read_is_not_heard() -> None:
    talk = await Talk.opened()
    talk.wire.unsent = MOST_UNREAD + 1
    talk.peer.protocol.send_ping(b"x")
    talk.wire.feed(talk.peer.sends())
    reading = [talk.wire.reading]
    talk.wire.unsent = 0
    talk.socket.pause_writing()
    talk.socket.resume_writing()
    reading.append(talk.wire.reading)
    assert reading == [False, True]


@timeless
async def test_sending_waits_for_a_slow_client() -> None:
    talk = await Talk.opened()
    talk.socket.pause_writing()
    message = {"type": "websocket.send", "text": "x"}
    sending = asyncio.gather(talk.socket.send(message), talk.socket.send(message))
    await settled()
    assert not sending.done()
    talk.socket.resume_writing()
    await sending
    assert len(talk.hears()) == 2


@timeless
async def test_a_slow_client_that_leaves_is_not_waited_for() -> None:
    talk = await Talk.opened()
    talk.socket.pause_writing()
    sending = asyncio.ensure_future(
        talk.socket.send({"type": "websocket.send", "text": "x"})
    )
    await settled()
    talk.wire.hangs_up()
    await sending
    assert await talk.next() == {"type": "websocket.disconnect", "code": 1006}


@pytest.mark.parametrize(
    ("opcode", "data", "code"),
    [
        pytest.param(Opcode.BINARY, bytes(LARGEST + 1), 1009, id="too large"),
        pytest.param(Opcode.TEXT, b"\xff\xfe", INVALID, id="no UTF-8"),
        pytest.param(Opcode.CONT, b"x", 1002, id="a fragment of nothing"),
    ],
)
@timeless
async def test_nonsense_ends_the_socket_and_is_named(
    opcode: Opcode, data: bytes, code: int
) -> None:
    talk = await Talk.opened()
    if opcode is Opcode.TEXT:
        talk.peer.protocol.send_text(data)
    elif opcode is Opcode.BINARY:
        talk.peer.protocol.send_binary(data)
    sent = talk.peer.sends() or b"\x80\x81\x00\x00\x00\x00x"
    talk.wire.feed(sent)
    assert await talk.next() == {"type": "websocket.disconnect", "code": code}
    talk.hears()
    received = talk.peer.protocol.close_rcvd
    assert received is not None
    assert received.code == code
    await asyncio.sleep(CLOSE_S)
    assert talk.wire.aborted


# Ends --------------------------------------------------------------------------


@timeless
async def test_a_clients_close_is_answered_and_told() -> None:
    talk = await Talk.opened()
    talk.peer.protocol.send_close(1001, "bye")
    talk.wire.feed(talk.peer.sends())
    assert await talk.next() == {"type": "websocket.disconnect", "code": 1001}
    assert talk.hears()[0][0] is Opcode.CLOSE
    await talk.socket.send({"type": "websocket.send", "text": "late"})
    assert talk.hears() == []
    await asyncio.sleep(CLOSE_S)
    assert talk.socket.closed.done()


@timeless
async def test_a_close_without_a_code_is_one() -> None:
    talk = await Talk.opened()
    talk.peer.protocol.send_close()
    talk.wire.feed(talk.peer.sends())
    assert (await talk.next())["code"] in (1005, 1006)


@timeless
async def test_our_close_tells_why() -> None:
    talk = await Talk.opened()
    await talk.socket.send(
        {"type": "websocket.close", "code": 1012, "reason": "x" * 200}
    )
    talk.hears()
    received = talk.peer.protocol.close_rcvd
    assert received is not None
    assert (received.code, received.reason) == (1012, "x" * 100)
    await talk.socket.send({"type": "websocket.send", "text": "late"})
    talk.wire.feed(talk.peer.sends())  # the client answers
    await settled()
    assert talk.wire.closed


@timeless
async def test_a_close_that_nobody_answers_becomes_a_break() -> None:
    talk = await Talk.opened()
    await talk.socket.send({"type": "websocket.close"})
    assert not talk.wire.aborted
    await asyncio.sleep(CLOSE_S)
    assert talk.wire.aborted


@timeless
async def test_closing_what_was_never_accepted_closes_the_connection() -> None:
    talk = Talk()
    await talk.socket.send({"type": "websocket.close"})
    assert talk.wire.closed


@pytest.mark.parametrize("how", ["hangs up", "half-closes"])
@timeless
async def test_a_client_that_is_gone_is_told_of_once(how: str) -> None:
    talk = await Talk.opened()
    reading = asyncio.ensure_future(talk.next())
    await settled()
    if how == "half-closes":
        assert not talk.socket.eof_received()
    talk.wire.hangs_up()
    assert await reading == {"type": "websocket.disconnect", "code": 1006}
    assert talk.socket.closed.done()
    await settled()


@timeless
async def test_what_waits_unread_is_looked_at_before_the_end() -> None:
    talk = await Talk.opened()
    count = 2 * MOST_WAITING // MESSAGE_WEIGHT
    for _ in range(count):
        talk.peer.protocol.send_text(b"")
    talk.peer.protocol.send_close(1000)
    talk.wire.feed(talk.peer.sends())
    talk.socket.eof_received()
    messages = await received(talk, count + 1)
    assert messages[-1] == {"type": "websocket.disconnect", "code": 1000}


@timeless
async def test_every_cut_of_a_close_is_a_close() -> None:
    talk = await Talk.opened()
    talk.peer.protocol.send_close(1001, "bye")
    sent = talk.peer.sends()
    for first, second in cut_in_two(sent):
        other = await Talk.opened()
        other.wire.feed(first, second)
        assert (await other.next())["code"] == 1001
