"""WebSocket bytes from clients and upstreams, cut anywhere."""

import asyncio
import json
import struct
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from services.gateway.server.body_memory import Room
from services.gateway.server.request import Request
from services.gateway.websocket import client
from services.gateway.websocket import frames as socket_frames
from services.gateway.websocket.client import ClientSocket, Closed
from tests.fuzz.bounds import CUTS, DAMAGE, FUZZ, damaged, values
from tests.fuzz.transports import FakeTransport, feed, turn
from tests.support.clients.wire import cut

LARGEST = 300
FAULTS = (1002, 1007, 1009)
HEADERS = [
    (b"host", b"proxy"),
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]


async def heard(pieces: tuple[bytes, ...]) -> tuple[object, ...]:
    """The messages that result from these bytes, and the replies."""
    request = Request("GET", b"/v1/responses", list(HEADERS))
    transport = FakeTransport(asyncio.Protocol())
    socket = ClientSocket(request, transport, LARGEST, Room(LARGEST))
    socket.take_over(b"")
    socket.accept()
    messages: list[object] = []

    async def take() -> None:
        while True:
            messages.append(await socket.receive())

    taking = asyncio.create_task(take())
    await feed(transport, pieces)
    if transport.ended is None:
        socket.connection_lost(None)
    await turn()
    taking.cancel()
    assert transport.ended != "aborted"
    *_, end = messages
    assert [m for m in messages if isinstance(m, Closed)] == [end]
    assert isinstance(end, Closed)
    held = len(socket._unparsed) + len(socket._fragments)
    assert held <= LARGEST + client.READ_STEP + max(map(len, pieces), default=0)
    _, _, written = bytes(transport.written).partition(b"\r\n\r\n")  # a date is in it
    if end.code in FAULTS:
        # Of two faults in one read the library reports its own first.
        return (messages[:-1],)
    return messages, written


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    opcode = draw(st.sampled_from([0, 1, 1, 1, 2, 8, 9, 10, 3]))
    payload = draw(
        st.one_of(
            st.binary(max_size=20),
            st.text(max_size=20).map(str.encode),
            st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"x" * 126, b"x" * 301]),
        )
    )
    first = opcode | draw(st.sampled_from([0x80, 0x80, 0x80, 0, 0xC0]))
    masked = draw(st.sampled_from([0x80, 0x80, 0x80, 0x80, 0]))
    head = bytes([first])
    if len(payload) < 126:
        head += bytes([masked | len(payload)])
    else:
        head += bytes([masked | 126]) + struct.pack(">H", len(payload))
    if masked:
        mask = draw(st.binary(min_size=4, max_size=4))
        head += mask
        payload = bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
    return head + payload


NO_UTF_8 = b"\x81\x81\0\0\0\0\x80"
UNMASKED = b"\x80\x00"
EMPTY = b"\x81\x80\0\0\0\0"


@FUZZ
@example([NO_UTF_8, EMPTY], [], [])  # a message was delivered after the end
@example([NO_UTF_8, UNMASKED], [], [7])
@given(st.lists(frames(), max_size=6), DAMAGE, CUTS)
def test_frames_cut_anywhere(
    sent: list[bytes], damage: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    data = damaged(b"".join(sent), damage)
    whole = asyncio.run(heard((data,)))
    assert asyncio.run(heard(cut(data, places))) == whole
    assert asyncio.run(heard(cut(data, range(len(data))))) == whole


KEYS = st.sampled_from(
    ["type", "stream_id", "status", "status_code", "error", "headers", "code",
     "retry-after", "message"]
)  # fmt: skip


@FUZZ
@given(
    st.one_of(
        values(KEYS).map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=40),
    ),
    DAMAGE,
)
def test_the_head_of_any_frame(
    sent: bytes, damage: list[tuple[int, int, bytes]]
) -> None:
    head = socket_frames.head_of(damaged(sent, damage))
    assert head.lane != ""
    (head.lane or "").encode()


@FUZZ
@given(st.dictionaries(KEYS, values(KEYS), max_size=5), st.none() | st.text(max_size=9))
def test_any_error_event_has_a_verdict(
    fields: dict[str, object], code: str | None
) -> None:
    event = json.dumps({**fields, "type": "error"}).encode()
    if socket_frames.head_of(event).type != "error":
        return  # not JSON to the gateway: NaN, or a lone surrogate
    status, verdict = socket_frames.of_error(event, code, lambda: datetime.now(UTC))
    assert isinstance(status, int)
    assert verdict.kind
