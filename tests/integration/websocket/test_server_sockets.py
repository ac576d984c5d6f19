"""WebSocket clients that violate the protocol, frame by frame: each gets its close
code, and nothing is left."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import httpx
import pytest
import pytest_asyncio

from tests.support.clients import raw
from tests.support.clients.frames import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    frame,
    read_frame,
    switching,
)
from tests.support.clients.raw import WAYS, Caller, Way, calling, get
from tests.support.processes.stack import Stack, gateway_before
from tests.support.processes.tasks import beside
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
LARGEST = 200_000
GATEWAY = {"PROXY_MAX_BODY_BYTES": str(LARGEST)}
CREATE = b'{"type":"response.create","model":"gpt-5.5","input":"hi"}'


@pytest_asyncio.fixture(loop_scope="module")
async def stack(standing: Stack) -> AsyncIterator[Stack]:
    async with raw.unharmed(standing):
        yield standing
        async with httpx.AsyncClient(timeout=60) as http:
            await http.delete(f"{standing.simulator.control_url}/faults")


async def received(caller: Caller) -> tuple[int, bytes]:
    """The next frame from the gateway: opcode and payload."""
    async with asyncio.timeout(raw.PATIENCE_S):
        return await read_frame(caller.reader)


async def close_code(caller: Caller) -> int:
    """The gateway's close code; it must close the connection, too."""
    while True:
        opcode, payload = await received(caller)
        if opcode == CLOSE:
            (code,) = struct.unpack(">H", payload[:2])
            await caller.closed()
            return int(code)


async def answered(caller: Caller) -> None:
    while b"response.completed" not in (await received(caller))[1]:
        pass


@asynccontextmanager
async def socket(stack: Stack, buffer: int | None = None) -> AsyncIterator[Caller]:
    async with calling(stack.origin, buffer) as caller:
        await caller.send(get(b"/v1/responses", *UPGRADE))
        status, _ = await caller.head()
        assert status == 101
        yield caller


BAD = {
    "a message over the limit": (frame(TEXT, b"x" * (LARGEST + 1)), 1009),
    "fragments over the limit": (
        frame(TEXT, b"x" * LARGEST, fin=False) + frame(0, b"x"),
        1009,
    ),
    "the length of such a one": (b"\x81\xff" + struct.pack(">Q", 2**62), 1009),
    "text that is no UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "text cut within a letter": (frame(TEXT, b"\xc3"), 1007),
    "a ping over 125 bytes": (frame(PING, b"x" * 126), 1002),
    "a ping in fragments": (frame(PING, fin=False), 1002),
    "no mask": (frame(TEXT, b"hi", masked=False), 1002),
    "an unknown opcode": (frame(3), 1002),
    "a reserved bit": (b"\xc1\x80\x00\x00\x00\x00", 1002),
    "a fragment of nothing": (frame(0, b"x"), 1002),
    "a message within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT), 1002),
    "a close with half a code": (frame(CLOSE, b"\x03"), 1002),
    "a close with an odd code": (frame(CLOSE, b"\x00\x01"), 1002),
}


@pytest.mark.parametrize(("data", "code"), BAD.values(), ids=BAD)
async def test_a_bad_frame_closes_the_socket(
    stack: Stack, data: bytes, code: int
) -> None:
    async with socket(stack) as caller:
        await caller.send(data)
        assert await close_code(caller) == code


class TestFrames:
    async def test_fragments_are_put_together(self, stack: Stack) -> None:
        async with socket(stack) as caller:
            for position, byte in enumerate(CREATE):
                opcode = TEXT if position == 0 else 0
                await caller.send(frame(opcode, bytes([byte]), fin=False))
                await caller.send(frame(PING, b"still here"))
            await caller.send(frame(0))
            await answered(caller)

    async def test_a_ping_is_answered(self, stack: Stack) -> None:
        async with socket(stack) as caller:
            await caller.send(frame(PING, b"x" * 125))
            assert await received(caller) == (PONG, b"x" * 125)

    async def test_a_close_is_answered(self, stack: Stack) -> None:
        async with socket(stack) as caller:
            await caller.send(frame(CLOSE, struct.pack(">H", 1000)))
            assert await close_code(caller) == 1000

    async def test_tiny_fragments_weigh_what_they_bring(self, stack: Stack) -> None:
        memory = raw.resident_mb(stack.gateway.pid)
        async with socket(stack) as caller:
            await caller.send(frame(TEXT, fin=False))
            for _ in range(10):
                await caller.send(frame(0, fin=False) * 50_000)
                await caller.send(frame(0, b"ab", fin=False) * 5_000)
            await caller.send(frame(PING))
            assert (await received(caller))[0] == PONG  # it has read everything
            assert raw.resident_mb(stack.gateway.pid) < memory + 25

    async def test_pings_whose_pongs_are_not_read_are_not_heard(
        self, stack: Stack
    ) -> None:
        memory = raw.resident_mb(stack.gateway.pid)
        async with socket(stack, buffer=4096) as caller:
            caller.reader._transport.pause_reading()  # type: ignore[attr-defined]
            async with flood(caller, frame(PING, b"x" * 125)) as sent:
                await raw.stalled(stack, sent)
            assert raw.resident_mb(stack.gateway.pid) < memory + 25


async def test_empty_messages_nobody_takes_are_not_heard(
    valkey_server: str, tmp_path: Path
) -> None:
    asked = asyncio.Event()

    async def opens_no_socket(reader: asyncio.StreamReader, _: object) -> None:
        await raw.request(reader)
        asked.set()
        await reader.read(1)

    # The gateway does not read from this client, so it learns only when it ends that
    # the client has left.
    settings = {**GATEWAY, "PROXY_DRAIN_SECONDS": "0.5"}
    async with (
        gateway_before(opens_no_socket, valkey_server, tmp_path, **settings) as stack,
        calling(stack.origin) as caller,
    ):
        memory = raw.resident_mb(stack.gateway.pid)
        await caller.send(get(b"/v1/responses", *UPGRADE))
        async with asyncio.timeout(raw.PATIENCE_S):
            await asked.wait()
        async with flood(caller, frame(TEXT)) as sent:
            await raw.stalled(stack, sent)
        assert raw.resident_mb(stack.gateway.pid) < memory + 25


async def test_a_flood_of_tiny_messages_lets_others_have_their_turn(
    valkey_server: str, tmp_path: Path
) -> None:
    """Messages arrive faster than they are passed on, so there is always another."""
    taken = 0

    async def takes_all(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal taken
        head, _ = await raw.request(reader)
        writer.write(switching(head))
        while data := await reader.read(65_536):
            taken += len(data) // 6

    async with (
        gateway_before(takes_all, valkey_server, tmp_path, **GATEWAY) as stack,
        raw.looking(stack) as look,
        socket(stack) as caller,
        flood(caller, frame(TEXT)),
    ):
        meanwhile = []
        for _ in range(9):
            await eventually(_grows(lambda: taken))
            before = taken
            await look()
            meanwhile.append(taken - before)
        # Reading the gateway's state takes a few loop turns, each with many messages.
        # The median, because this process may wait for a core meanwhile.
        assert median(meanwhile) < 20_000, meanwhile


def _grows(count: Callable[[], int]) -> Callable[[], Awaitable[bool]]:
    first = count()

    async def grown() -> bool:
        return count() > first

    return grown


@asynccontextmanager
async def flood(caller: Caller, data: bytes) -> AsyncIterator[Callable[[], int]]:
    """Send `data` repeatedly while the context is open; yields a function that returns
    how often it was sent. A flood must not end by itself."""
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await caller.send(data * 5_000)
            sent += 5_000

    async with beside(send()) as sending:
        yield lambda: sent
        assert not sending.done()


BROKEN = {
    "no key": UPGRADE[:3],
    "an odd key": (*UPGRADE[:3], b"sec-websocket-key: short"),
    "a subprotocol that is no UTF-8": (*UPGRADE, b"sec-websocket-protocol: \xff"),
    "a key that is no UTF-8": (*UPGRADE[:3], b"sec-websocket-key: \xff"),
    "an old version": (*UPGRADE[:2], b"sec-websocket-version: 8", UPGRADE[3]),
}


class TestUpgrade:
    @pytest.mark.parametrize("lines", BROKEN.values(), ids=BROKEN)
    async def test_a_bad_one_is_refused_at_once(
        self, stack: Stack, lines: tuple[bytes, ...]
    ) -> None:
        asked = len(stack.journal())
        async with calling(stack.origin) as caller:
            await caller.send(get(b"/v1/responses", *lines))
            reply = await caller.reply()
            assert (reply.status, reply.code) == (400, "bad_request")
            assert await caller.closed() == b""
        assert len(stack.journal()) == asked  # no upstream was asked

    async def test_one_that_is_no_get_is_an_ordinary_request(
        self, stack: Stack
    ) -> None:
        """A server may ignore `Upgrade` (RFC 9110 section 7.8)."""
        async with calling(stack.origin) as caller:
            await caller.send(raw.post(CREATE, *UPGRADE))
            assert (await caller.reply()).status == 200

    async def test_long_headers_do_no_harm(self, stack: Stack) -> None:
        lines = [b"x-long: " + b"x" * 20_000, *[b"x-many: x"] * 100]
        async with calling(stack.origin) as caller:
            await caller.send(get(b"/v1/responses", *UPGRADE, *lines))
            assert (await caller.head())[0] == 101

    async def test_frames_sent_before_the_answer_are_not_lost(
        self, stack: Stack
    ) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(get(b"/v1/responses", *UPGRADE) + frame(TEXT, CREATE))
            assert (await caller.head())[0] == 101
            await answered(caller)

    @pytest.mark.parametrize("way", WAYS)
    async def test_a_client_that_leaves_during_it_leaves_nothing(
        self, stack: Stack, way: Way
    ) -> None:
        for _ in range(10):
            async with calling(stack.origin) as caller:
                await caller.send(get(b"/v1/responses", *UPGRADE))
                caller.leave(way)
        await stack.fault(timeout=True)
        async with calling(stack.origin) as caller:
            await caller.send(get(b"/v1/responses", *UPGRADE))
            caller.leave(way)
            await eventually(lambda: raw.at_rest(stack))

    @pytest.mark.parametrize("way", WAYS)
    async def test_a_client_that_leaves_has_cancelled(
        self, stack: Stack, way: Way
    ) -> None:
        await stack.fault(stall_after=2)
        before = len(await stack.events("request"))
        async with socket(stack) as caller:
            await caller.send(frame(TEXT, CREATE))
            await received(caller)
            caller.leave(way)
            await eventually(lambda: raw.at_rest(stack))

        async def told() -> bool:
            rows = (await stack.events("request"))[before:]
            return [row["outcome"] for row in rows] == ["cancelled"]

        await eventually(told)


async def test_a_client_that_never_reads_its_close_is_let_go(stack: Stack) -> None:
    async with socket(stack, buffer=4096) as caller:
        caller.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await caller.send(frame(PING, b"x" * 125) * 7000 + frame(3))
        await eventually(lambda: raw.at_rest(stack))
