"""A canned upstream, much cheaper than the servers under test: no routing, no parsing
beyond the framing. `python -m bench.parts.upstream PORT`."""

import asyncio
import itertools
import re
import sys
from typing import cast

import uvloop

from bench.parts import wire

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def _json_answer() -> bytes:
    body = wire.answer_body()
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        "x-request-id: req_bench\r\nopenai-version: 2020-10-01\r\n"
        f"openai-processing-ms: 5\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


JSON = _json_answer()
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"x-request-id: req_bench\r\nopenai-version: 2020-10-01\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
CHUNKS = [b"%x\r\n%b\r\n" % (len(event), event) for event in wire.stream_events()]
FIRST = STREAM_HEAD + CHUNKS[0]
LAST = CHUNKS[-1] + wire.STREAM_END
# The end of all ids, and others of its length.
ID = b"_bench"
_ids = (b"_%05x" % number for number in itertools.cycle(range(16**5)))


class Canned(asyncio.Protocol):
    """Answers the requests of a connection one after the other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._id = ID  # of the answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
        if not _complete(data):
            self._held = data
            return
        self._held = b""
        assert self._transport is not None
        self._id = next(_ids) if wire.UNIQUE in data else ID
        if wire.STREAMED not in data:
            self._transport.write(self._named(JSON))
            return
        self._transport.write(self._named(FIRST))
        if wire.HELD in data:
            return
        if wire.PACED in data:
            self._loop.call_later(wire.GAP_S, self._pace, 1, self._loop.time())
        else:
            self._loop.call_soon(self._hurry, 1)

    def _hurry(self, number: int) -> None:
        """Write one event per turn of the loop, so that each is a separate write."""
        if self._write(number):
            self._loop.call_soon(self._hurry, number + 1)

    def _pace(self, number: int, began: float) -> None:
        if self._write(number):
            due = began + (number + 1) * wire.GAP_S
            self._loop.call_at(due, self._pace, number + 1, began)

    def _write(self, number: int) -> bool:
        """Write an event; returns whether there is another."""
        if self._transport is None:
            return False
        last = number == wire.EVENTS - 1
        self._transport.write(self._named(LAST if last else CHUNKS[number]))
        return not last

    def _named(self, data: bytes) -> bytes:
        return data if self._id is ID else data.replace(ID, self._id)


def _complete(data: bytes) -> bool:
    end = data.find(wire.HEAD_END)
    if end < 0:
        return False
    length = _LENGTH.search(data, 0, end)
    return len(data) >= end + 4 + (int(length[1]) if length else 0)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Canned, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
