"""Event streams through a gateway process: the client gets the upstream's bytes,
compressed or not, however they are cut; and what a compressed stream's client learns
when the upstream breaks off."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import APIConnectionError, AsyncOpenAI

from libs.common.headers import find
from services.gateway.content.coding import LARGEST_OPENED
from tests.support.clients.exact import Exchange, Rig, gateway_rig
from tests.support.clients.wire import Reply, chunked, cut
from tests.support.upstreams.simulated import create

pytestmark = pytest.mark.asyncio(loop_scope="module")
bounded = settings(deadline=None, derandomize=True, database=None, max_examples=100)
ASK = json.dumps(create(stream=True)).encode()
REQUEST = (
    b"POST /v1/responses HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip, zstd\r\n"
    + (b"content-length: %d\r\n\r\n%b" % (len(ASK), ASK))
)
RESPONSE = {
    "id": "resp_exact1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "output": [],
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}
USAGE = {
    "input_tokens": 3,
    "output_tokens": 4,
    "total_tokens": 7,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rig]:
    async with gateway_rig(valkey_server, tmp_path_factory.mktemp("streams")) as rig:
        yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def openai(rig: Rig) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=rig.stack.url, api_key="client", max_retries=0
    ) as client:
        yield client


# What upstreams say ----------------------------------------------------------


def event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False).encode()
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def begun() -> bytes:
    return event("response.created", response={**RESPONSE, "status": "in_progress"})


def delta(text: str) -> bytes:
    return event(
        "response.output_text.delta",
        item_id="msg_1",
        output_index=0,
        content_index=0,
        delta=text,
        logprobs=[],
        sequence_number=1,
    )


def completed() -> bytes:
    ended = {**RESPONSE, "status": "completed", "usage": USAGE}
    return event("response.completed", response=ended)


def as_it_is(events: list[bytes]) -> list[bytes]:
    return events


def gzipped(events: list[bytes]) -> list[bytes]:
    """Each event can be decompressed as soon as it arrives, as edge networks send
    it."""
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(e) + packer.flush(zlib.Z_SYNC_FLUSH) for e in events]
    return [*packed, packer.flush()]


def zstandard_packed(events: list[bytes]) -> list[bytes]:
    packer = zstandard.ZstdCompressor().compressobj()
    flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    packed = [packer.compress(e) + packer.flush(flush) for e in events]
    return [*packed, packer.flush()]


def gzipped_late(events: list[bytes]) -> list[bytes]:
    """Nothing can be decompressed before the end."""
    return [gzip.compress(b"".join(events), mtime=0)]


Packing = tuple[bytes, Callable[[list[bytes]], list[bytes]]]
PLAIN: Packing = (b"", as_it_is)
GZIP: Packing = (b"gzip", gzipped)
ZSTD: Packing = (b"zstd", zstandard_packed)
LATE: Packing = (b"gzip", gzipped_late)


def opening(coding: bytes) -> bytes:
    packed = b"content-encoding: %b\r\n" % coding if coding else b""
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + packed


def streamed(packing: Packing, *events: bytes, ends: bool = True) -> Reply:
    """Send chunk by chunk; then end the stream, or close the connection."""
    coding, pack = packing
    pieces = pack(list(events))
    if not ends and pack is not as_it_is:
        pieces = pieces[:-1]
    head = opening(coding) + b"transfer-encoding: chunked\r\n\r\n"
    chunks = [chunked([piece])[:-5] for piece in pieces]
    last = [b"0\r\n\r\n"] if ends else []
    return Reply((head, *chunks, *last), closes=not ends)


# Exact -----------------------------------------------------------------------

chatter = st.one_of(
    st.text(max_size=60).map(delta),
    st.sampled_from(
        [b": ping\n\n", b"\n", b"data: [DONE]\n\n", b"event: odd\nid: 7\ndata:\n\n",
         b'data: {"type":"keepalive"}\n\n', b"data: a\ndata: b\n\n", b"retry: 5\n\n"]
    ),
)  # fmt: skip
places = st.lists(st.integers(0, 1 << 20), max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> Reply:
    """A complete stream, cut and chunked anyhow, compressed or not."""
    before, after = (
        draw(st.lists(chatter, max_size=8)),
        draw(st.lists(chatter, max_size=2)),
    )
    events = [begun(), *before, completed(), *after]
    if draw(st.booleans()):
        events = [e.replace(b"\n", b"\r\n") for e in events]
    coding, pack = draw(st.sampled_from([PLAIN, GZIP, ZSTD, LATE]))
    body = b"".join(pack(events))
    framing = draw(st.sampled_from(["chunks", "length", "close"]))
    lines = b""
    if framing == "chunks":
        lines = b"transfer-encoding: chunked\r\n"
        body = chunked(cut(body, draw(places)))
    elif framing == "length":
        lines = b"content-length: %d\r\n" % len(body)
    whole = opening(coding) + lines + b"\r\n" + body
    pause = draw(st.sampled_from([0.0, 0.0, 0.001]))
    return Reply(cut(whole, draw(places)), pause, closes=framing == "close")


@bounded
@given(reply=streams())
async def test_a_stream_is_the_upstreams_byte_for_byte(rig: Rig, reply: Reply) -> None:
    said = [Exchange("POST", (REQUEST,), reply)]
    ((_, direct),) = await rig.ask(rig.direct_port, said)
    ((_, through),) = await rig.ask(rig.gateway_port, said)

    assert through.body == direct.body
    coding = b"content-encoding"
    assert find(through.headers, coding) == find(direct.headers, coding)


# Packed ----------------------------------------------------------------------


@pytest.mark.parametrize("packing", [GZIP, ZSTD, LATE], ids=["gzip", "zstd", "late"])
async def test_the_ledger_reads_a_packed_stream(rig: Rig, packing: Packing) -> None:
    reply = streamed(packing, begun(), delta("hi"), completed())
    ((_, got),) = await rig.ask(rig.gateway_port, [Exchange("POST", (REQUEST,), reply)])
    row = await ledger_row(rig, got.headers)
    assert (row["outcome"], row["usage_state"]) == ("completed", "final")
    assert (row["response_id"], row["total_tokens"]) == ("resp_exact1", 7)
    assert row["first_token_ms"] > 0


@pytest.mark.parametrize("packing", [GZIP, ZSTD], ids=["gzip", "zstd"])
async def test_a_packed_stream_too_large_to_look_into_passes_whole(
    rig: Rig, packing: Packing
) -> None:
    """Nobody knows how it ended, but it is complete."""
    reply = streamed(packing, begun(), delta("x" * (LARGEST_OPENED + 1)), completed())
    said = [Exchange("POST", (REQUEST,), reply)]
    ((_, direct),) = await rig.ask(rig.direct_port, said)
    ((_, through),) = await rig.ask(rig.gateway_port, said)
    assert through.body == direct.body


async def test_openai_python_reads_a_packed_stream(
    rig: Rig, openai: AsyncOpenAI
) -> None:
    rig.upstream.reply = streamed(GZIP, begun(), delta("hi"), completed())
    seen = [e.type async for e in await openai.responses.create(**ask())]
    assert seen[-1] == "response.completed"
    request = rig.upstream.got.pop()
    assert b"gzip" in (find(request.headers, b"accept-encoding") or b"")


@pytest.mark.parametrize("packing", [GZIP, ZSTD], ids=["gzip", "zstd"])
@pytest.mark.parametrize("ends", [False, True], ids=["cut", "clean end"])
async def test_a_packed_stream_without_its_end_breaks_the_connection(
    rig: Rig, packing: Packing, ends: bool
) -> None:
    """The gateway cannot insert an event into the compressed data; a client must not
    take an incomplete stream for a complete one."""
    rig.upstream.reply = streamed(packing, begun(), delta("hi"), ends=ends)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.gateway_port)
    writer.write(REQUEST)
    raw = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    rig.upstream.got.clear()

    head, _, body = raw.partition(b"\r\n\r\n")
    sent = b"".join(rig.upstream.reply.pieces[1:]).removesuffix(b"0\r\n\r\n")
    assert unchunked(body) == unchunked(sent)
    assert not body.endswith(b"0\r\n\r\n")
    headers = [(n.lower(), v) for n, _, v in (
        line.partition(b": ") for line in head.split(b"\r\n"))]  # fmt: skip
    row = await ledger_row(rig, headers)
    assert row["outcome"] == "failed"


async def test_openai_python_raises_when_a_packed_stream_is_cut(
    rig: Rig, openai: AsyncOpenAI
) -> None:
    rig.upstream.reply = streamed(GZIP, begun(), delta("hi"), ends=False)
    stream = await openai.responses.create(**ask())
    seen = [(await anext(stream)).type for _ in range(2)]
    with pytest.raises(APIConnectionError):
        await anext(stream)
    rig.upstream.got.clear()
    assert seen == ["response.created", "response.output_text.delta"]


def ask() -> dict[str, Any]:
    return create(stream=True)


def unchunked(body: bytes) -> bytes:
    """The content of complete chunks."""
    data = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        data += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return data


async def ledger_row(rig: Rig, headers: Any) -> dict[str, Any]:
    """The request's row, once it exists."""
    id_ = find(headers, b"x-proxy-request-id")
    assert id_ is not None
    return await rig.stack.request(id_.decode())
