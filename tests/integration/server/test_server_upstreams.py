"""Upstreams that send invalid, excessive or endless data: the client gets an error, the
row records it, and the connections are closed."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any

import pytest
import pytest_asyncio
import zstandard

from tests.support.clients import raw
from tests.support.clients.raw import Reply, calling, event, post
from tests.support.processes.stack import Stack, gateway_before
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"content-type: application/json\r\n"
CREATED = event("response.created", sequence_number=0, response={"id": "resp_1"})
DONE = event("response.completed", sequence_number=1, response={"id": "resp_1"})
ANSWER = b'{"id":"resp_1","object":"response","status":"completed"}'
SETTINGS = {
    "PROXY_MAX_ATTEMPTS": "1",
    "PROXY_RESOURCE_COOLDOWN_SECONDS": "0.01",
    "PROXY_MAX_BODY_BYTES": "30000000",
    "PROXY_REQUEST_TIMEOUT_SECONDS": "10",
}


class Upstream:
    """Does what the test says."""

    def __init__(self) -> None:
        self.script: Script = saying(b"")

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self.script(reader, writer)


def saying(data: bytes, repeated: bytes = b"", *, closes: bool = True) -> Script:
    """After a request, send `data`, then `repeated` as long as it is read; then close
    the connection, or stay silent."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await raw.request(reader)
        writer.write(data)
        while repeated:
            writer.write(repeated * 100)
            await writer.drain()
        if closes:
            await writer.drain()
            writer.close()
        else:
            await reader.read()

    return say


@pytest.fixture(scope="module")
def upstream() -> Upstream:
    return Upstream()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    upstream: Upstream, valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    folder = tmp_path_factory.mktemp("gateway")
    async with gateway_before(
        upstream.serve, valkey_server, folder, **SETTINGS
    ) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def stack(standing: Stack) -> AsyncIterator[Stack]:
    async with raw.unharmed(standing, grown_mb=30):
        yield standing


async def asked(stack: Stack, body: bytes = b"{}") -> Reply:
    """The complete answer to a request. Raises `IncompleteReadError` if it is cut."""
    async with calling(stack.origin) as caller:
        await caller.send(post(body))
        return await caller.reply()


async def last_row(stack: Stack) -> dict[str, Any]:
    await eventually(lambda: raw.at_rest(stack))
    return (await stack.events("request"))[-1]


async def dropped(stack: Stack) -> None:
    """Whether the gateway keeps no connection to the upstream."""

    async def none() -> bool:
        return await raw.gauge(stack, "upstream_connections") == 0

    await eventually(none)


NO_ANSWER = {
    "nothing": saying(b""),
    "garbage": saying(b"\x00\x01\x02 nonsense\r\n\r\n"),
    "another protocol": saying(b"220 mail.example ESMTP\r\n", closes=False),
    "a status that is none": saying(b"HTTP/1.1 abc OK\r\n\r\n", closes=False),
    "a head that is cut": saying(JSON),
    "a head that never ends": saying(JSON, b"x-more: of this\r\n"),
    "one header that never ends": saying(JSON + b"x-more: ", b"of this "),
    "1xx without end": saying(b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
    "an upgrade nobody asked for": saying(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n"
        b"upgrade: websocket\r\n\r\n",
        closes=False,
    ),
    "both framings": saying(
        JSON + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        closes=False,
    ),
    "two lengths": saying(
        JSON + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", closes=False
    ),
    "NUL in a header": saying(JSON + b"x-a: \x00\r\n\r\n", closes=False),
}


@pytest.mark.parametrize("script", NO_ANSWER.values(), ids=NO_ANSWER)
async def test_what_is_no_answer_is_502(
    stack: Stack, upstream: Upstream, script: Script
) -> None:
    upstream.script = script
    reply = await asked(stack)
    assert (reply.status, reply.code) == (502, "upstream_unreachable")
    row = await last_row(stack)
    assert (row["outcome"], row["status_code"]) == ("failed", 502)
    assert row["error_code"] == "upstream_unreachable"
    await dropped(stack)


CUT = {
    "a body shorter than its length": saying(JSON + b"content-length: 99\r\n\r\n{}"),
    "chunks without an end": saying(JSON + raw.CHUNKED + raw.chunk(ANSWER)),
    "a chunk size that is none": saying(
        JSON + raw.CHUNKED + raw.chunk(ANSWER) + b"zz\r\n", closes=False
    ),
    "a chunk longer than told": saying(
        JSON + raw.CHUNKED + b"2\r\nabcdef\r\n0\r\n\r\n", closes=False
    ),
    "trailers without end": saying(
        JSON + raw.CHUNKED + raw.chunk(ANSWER) + b"0\r\n", b"x-more: of this\r\n"
    ),
    "one trailer without end": saying(
        JSON + raw.CHUNKED + raw.chunk(ANSWER) + b"0\r\nx: ", b"more of this "
    ),
}


@pytest.mark.parametrize("script", CUT.values(), ids=CUT)
async def test_an_answer_that_is_cut_is_not_taken_for_whole(
    stack: Stack, upstream: Upstream, script: Script
) -> None:
    upstream.script = script
    with pytest.raises(asyncio.IncompleteReadError):
        await asked(stack)
    row = await last_row(stack)
    assert row["outcome"] == "failed"
    assert row["error_code"]
    await dropped(stack)


STREAMS = {
    "cut": saying(raw.SSE + raw.CHUNKED + raw.chunk(CREATED)),
    "cut within an event": saying(
        raw.SSE + raw.CHUNKED + raw.chunk(CREATED + DONE[:9])
    ),
    "ended too soon": saying(raw.SSE + raw.CHUNKED + raw.chunk(CREATED) + b"0\r\n\r\n"),
    "a chunk size that is none": saying(
        raw.SSE + raw.CHUNKED + raw.chunk(CREATED) + b"zz\r\n", closes=False
    ),
    "a body shorter than its length": saying(
        raw.SSE + b"content-length: 9999\r\n\r\n" + CREATED
    ),
    "trailers without end": saying(
        raw.SSE + raw.CHUNKED + raw.chunk(CREATED) + b"0\r\n", b"x-more: of this\r\n"
    ),
}


@pytest.mark.parametrize("script", STREAMS.values(), ids=STREAMS)
async def test_a_stream_that_breaks_ends_in_response_failed(
    stack: Stack, upstream: Upstream, script: Script
) -> None:
    upstream.script = script
    async with calling(stack.origin) as caller:
        await caller.send(post(b'{"stream":true}'))
        status, _ = await caller.head()
        assert status == 200
        text = await caller.reader.readuntil(b"response.failed")
        assert b"resp_1" in text
    row = await last_row(stack)
    assert (row["outcome"], row["error_code"]) == ("failed", "server_error")


WHOLE = {
    "trailers": saying(
        JSON + raw.CHUNKED + raw.chunk(ANSWER) + b"0\r\nx-trailer: 1\r\n\r\n"
    ),
    "hints before": saying(
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + raw.sized(ANSWER)
    ),
    "no framing at all": saying(JSON + b"\r\n" + ANSWER),
    "HTTP/1.0": saying(JSON.replace(b"1.1", b"1.0") + b"\r\n" + ANSWER),
    "a head of 60 KB": saying(raw.sized(ANSWER, b"x-large: " + b"x" * 60_000)),
    "a second answer": saying(raw.sized(ANSWER) * 2, closes=False),
    "bytes behind": saying(raw.sized(ANSWER) + b"nonsense", closes=False),
}


@pytest.mark.parametrize("script", WHOLE.values(), ids=WHOLE)
async def test_what_is_only_odd_passes(
    stack: Stack, upstream: Upstream, script: Script
) -> None:
    upstream.script = script
    reply = await asked(stack)
    assert (reply.status, reply.body) == (200, ANSWER)
    assert "x-trailer" not in reply.headers
    assert (await last_row(stack))["outcome"] == "completed"
    await dropped(stack)


async def test_an_answer_before_the_request_was_read(
    stack: Stack, upstream: Upstream
) -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(raw.sized(ANSWER))
        await writer.drain()
        await asyncio.sleep(0.2)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        await reader.read()

    upstream.script = hasty
    assert (await asked(stack, b" " * 20_000_000)).status in (200, 502)
    await last_row(stack)
    await dropped(stack)


@cache
def bomb(coding: str) -> bytes:
    """500 MB of spaces, compressed. Made by the first test that needs it: compressing
    takes a second, which collecting the tests should not."""
    packer: Any = {
        "gzip": zlib.compressobj(1, wbits=31),
        "deflate": zlib.compressobj(1),
        "zstd": zstandard.ZstdCompressor().compressobj(),
    }[coding]
    spaces = b" " * 1_000_000
    return b"".join([*(packer.compress(spaces) for _ in range(500)), packer.flush()])


CODED = {
    "gzip garbage": ("gzip", lambda: b"this is no gzip"),
    "gzip cut": ("gzip", lambda: gzip.compress(ANSWER)[:-9]),
    "a gzip bomb": ("gzip", lambda: bomb("gzip")),
    "a deflate bomb": ("deflate", lambda: bomb("deflate")),
    "a zstd bomb": ("zstd", lambda: bomb("zstd")),
    "zstd garbage": ("zstd", lambda: b"this is no zstd"),
}


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
@pytest.mark.parametrize(("coding", "made"), CODED.values(), ids=CODED)
async def test_what_cannot_be_opened_passes_closed(
    stack: Stack,
    upstream: Upstream,
    coding: str,
    made: Callable[[], bytes],
    kind: bytes,
) -> None:
    body, line = made(), b"content-encoding: " + coding.encode()
    upstream.script = saying(raw.sized(body, line, kind=kind))
    assert (await asked(stack)).body == body
    row = await last_row(stack)
    assert row["response_bytes"] == len(body)


async def test_a_failure_that_is_a_bomb(stack: Stack, upstream: Upstream) -> None:
    body = bomb("zstd")
    answer = raw.sized(body, b"content-encoding: zstd")
    upstream.script = saying(answer.replace(b"200 OK", b"500 No"))
    assert (await asked(stack)).body == body
