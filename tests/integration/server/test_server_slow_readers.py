"""Slow clients: the gateway applies backpressure to their upstreams and holds almost
nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.support.clients import raw
from tests.support.clients.raw import Caller, calling, event, post
from tests.support.clients.sockets import visited
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
LENGTH = 200_000_000
PIECE = 200_000
MOST_GROWTH_MB = 30
CREATED = event("response.created", sequence_number=0, response={"id": "resp_1"})
DONE = event("response.completed", sequence_number=9, response={"id": "resp_1"})


@asynccontextmanager
async def gateway(valkey: str, folder: Path, port: int) -> AsyncIterator[Stack]:
    url = f"http://127.0.0.1:{port}/v1"
    async with gateway_stack(valkey, folder, PROXY_UPSTREAM_BASE_URL=url) as stack:
        yield stack


class Sender:
    """An upstream with a large answer."""

    def __init__(self, head: bytes, pieces: list[bytes], last: bytes) -> None:
        self._head = head
        self._pieces = pieces
        self._last = last
        self.sent = 0
        self.ended = False

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await raw.request(reader)
        writer.write(self._head)
        number = 0
        while self.sent < LENGTH:
            piece = self._pieces[number % len(self._pieces)]
            number += 1
            writer.write(piece)
            await writer.drain()
            self.sent += len(piece)
        writer.write(self._last)
        await writer.drain()
        self.ended = True
        await reader.read()


def _sse() -> Sender:
    delta = event("response.output_text.delta", sequence_number=1, delta="x" * 1000)
    piece = raw.chunk(delta * (PIECE // len(delta)))
    head = raw.SSE + raw.CHUNKED + raw.chunk(CREATED)
    return Sender(head, [piece], raw.chunk(DONE) + b"0\r\n\r\n")


def _plain(kind: bytes) -> Sender:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    return Sender(head % (kind, LENGTH), [b"x" * PIECE], b"")


@pytest.mark.parametrize(
    "sender",
    [_sse(), _plain(b"application/octet-stream"), _plain(b"application/json")],
    ids=["sse", "bytes", "json"],
)
async def test_200_mb_pass_in_a_few(
    sender: Sender, valkey: str, tmp_path: Path
) -> None:
    async with (
        visited(sender.serve) as upstream,
        gateway(valkey, tmp_path, upstream.port) as stack,
        calling(stack.origin, buffer=65_536) as caller,
    ):
        pid = stack.gateway.pid
        before = raw.resident_mb(pid)
        await caller.send(post(b'{"stream":true}'))
        most, read = await _read(caller, sender, stack, upstream.port)
        assert read >= LENGTH
        assert most - before < MOST_GROWTH_MB
        caller.leave()
        await eventually(lambda: raw.at_rest(stack))


async def _read(
    caller: Caller, sender: Sender, stack: Stack, port: int
) -> tuple[float, int]:
    """Read a little, wait until the upstream is paused, then read the rest. Returns the
    highest memory use, and the bytes read."""
    data = await caller.reader.read(65_536)
    held = await raw.stalled(stack, lambda: sender.sent)
    # Most of the data is in kernel buffers, whose size is the system's.
    assert held - raw.in_kernel(port) < MOST_GROWTH_MB * 1e6
    pid = stack.gateway.pid
    most, read = raw.resident_mb(pid), len(data)
    while read < LENGTH or not sender.ended:
        read += len(await caller.reader.read(1_000_000))
        most = max(most, raw.resident_mb(pid))
    return most, read


@pytest.mark.parametrize("size", [50_000, 2_000_000])
async def test_a_burst_of_50_mb_on_a_socket(
    size: int, valkey: str, tmp_path: Path
) -> None:
    frames = [
        CREATED.split(b"data: ")[1].strip().decode(),
        *[json.dumps({"type": "x", "delta": "x" * size})] * (50_000_000 // size),
        DONE.split(b"data: ")[1].strip().decode(),
    ]

    async def burst(upstream: ServerConnection) -> None:
        await upstream.recv()
        for frame in frames:
            await upstream.send(frame)
        await upstream.wait_closed()

    async with (
        serve(burst, "127.0.0.1", 0, compression=None) as server,
        gateway(valkey, tmp_path, next(iter(server.sockets)).getsockname()[1]) as stack,
    ):
        pid = stack.gateway.pid
        before = raw.resident_mb(pid)
        url = stack.url.replace("http", "ws") + "/responses"
        async with connect(
            url, compression=None, proxy=None, max_size=None, max_queue=1
        ) as client:
            await client.send('{"type":"response.create"}')
            most = 0.0
            for number, frame in enumerate(frames):
                if number % 10 == 5:
                    await asyncio.sleep(0.02)
                assert await client.recv() == frame
                most = max(most, raw.resident_mb(pid))
        assert most - before < MOST_GROWTH_MB
