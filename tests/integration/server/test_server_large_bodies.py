"""Bodies that need much time and memory to read do not make other clients wait."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import zstandard

from tests.support.clients import raw
from tests.support.clients.raw import calling, get, post
from tests.support.processes.stack import Stack, gateway_before
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
TRIES = 3  # the minimum counts, because the machine has other work
ANSWER = raw.sized(b'{"id":"resp_1","object":"response","status":"completed"}')


def items(count: int = 5_000_000) -> bytes:
    return b'{"model":"m","input":[' + b"{}," * count + b'{"id":"rs_1"}]}'


class Upstream:
    """Records received bodies, and answers all of them alike."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.body = b""
        self.answer = ANSWER

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            _, self.body = await raw.request(reader)
            self.arrived.set()
            writer.write(self.answer)
            await writer.drain()


@pytest_asyncio.fixture(loop_scope="module")
async def upstream() -> Upstream:
    return Upstream()


@pytest_asyncio.fixture(loop_scope="module")
async def stack(
    upstream: Upstream, valkey_server: str, tmp_path: Path
) -> AsyncIterator[Stack]:
    async with gateway_before(upstream.serve, valkey_server, tmp_path) as stack:
        yield stack


async def held_up(stack: Stack, upstream: Upstream, request: bytes) -> float:
    """The share of the time until this request goes upstream that another client waits
    for one answer."""
    loop = asyncio.get_running_loop()
    upstream.arrived.clear()
    async with calling(stack.origin) as other, calling(stack.origin) as sender:
        began = asked = loop.time()
        longest = 0.0
        sending = asyncio.create_task(sender.send(request))
        while not upstream.arrived.is_set():
            await other.send(get(b"/v1/responses/%2e%2e"))  # refused at once
            assert (await other.reply()).status == 404
            longest, asked = max(longest, loop.time() - asked), loop.time()
        took = loop.time() - began
        await sending
        assert (await sender.reply()).status == 200
    return longest / took


@pytest.mark.parametrize(
    ("pack", "coding"),
    [
        pytest.param(gzip.compress, b"gzip", id="15 KiB of gzip"),
        pytest.param(zstandard.compress, b"zstd", id="zstd"),
        pytest.param(bytes, b"identity", id="plain"),
    ],
)
async def test_a_request_of_15_kib_does_not_stall_the_gateway(
    stack: Stack, upstream: Upstream, pack: Callable[[bytes], bytes], coding: bytes
) -> None:
    body = pack(items())
    request = post(body, b"content-encoding: " + coding)
    shares = [await held_up(stack, upstream, request) for _ in range(TRIES)]
    assert min(shares) < 0.4, shares
    assert upstream.body == body
    await eventually(lambda: raw.at_rest(stack))
    rows = [r for r in await stack.events("request") if r["outcome"] == "completed"]
    assert [row["model"] for row in rows] == ["m"] * TRIES


async def test_32_mib_of_items_take_no_900_mib(
    stack: Stack, upstream: Upstream
) -> None:
    body = items(32 * 2**20 // 3)
    before = raw.resident_mb(stack.gateway.pid)
    async with calling(stack.origin) as caller:
        await caller.send(post(body))
        assert (await caller.reply()).status == 200
    grown = most_resident_mb(stack.gateway.pid) - before
    assert grown < 3 * len(body) / 1e6
    assert len(upstream.body) == len(body)


async def test_a_client_that_leaves_ends_the_reading_of_its_body(
    stack: Stack, upstream: Upstream
) -> None:
    async with calling(stack.origin) as other, calling(stack.origin) as sender:
        await sender.send(post(gzip.compress(items()), b"content-encoding: gzip"))
        await other.send(get(b"/v1/responses/%2e%2e"))
        assert (await other.reply()).status == 404
        sender.leave()
    await eventually(lambda: raw.at_rest(stack))
    assert not upstream.arrived.is_set()


def most_resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [x for x in status.splitlines() if x.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


USAGE = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
RESPONSE = {
    "id": "resp_1", "object": "response", "model": "m", "status": "completed",
    "output": [{"id": "ig_1", "result": "QUJD" * 500_000}], "usage": USAGE,
}  # fmt: skip
STREAM = raw.event("response.created", response={"id": "resp_1"}) + raw.event(
    "response.completed", response=RESPONSE
)


def packed(body: bytes, kind: bytes, coding: bytes = b"gzip") -> bytes:
    return raw.sized(gzip.compress(body), b"content-encoding: " + coding, kind=kind)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(raw.sized(json.dumps(RESPONSE).encode()), id="JSON"),
        pytest.param(raw.sized(STREAM, kind=b"text/event-stream"), id="stream"),
        pytest.param(packed(STREAM, b"text/event-stream"), id="packed stream"),
        pytest.param(
            packed(json.dumps(RESPONSE).encode(), b"application/json"), id="packed JSON"
        ),
    ],
)
async def test_a_large_answer_is_passed_on_and_accounted_for(
    stack: Stack, upstream: Upstream, answer: bytes
) -> None:
    upstream.answer = answer
    async with calling(stack.origin) as caller:
        await caller.send(post(b"{}"))
        reply = await caller.reply()
    assert answer.endswith(reply.body)
    assert len(reply.body) > 1_000
    await eventually(lambda: raw.at_rest(stack))
    row = (await stack.events("request"))[-1]
    assert (row["outcome"], row["total_tokens"]) == ("completed", 12)


async def test_an_answer_of_millions_of_items_does_not_stall_the_gateway(
    stack: Stack, upstream: Upstream
) -> None:
    items = b'{"id":"resp_1","output":[' + b"{}," * 2_500_000 + b"{}]}"
    upstream.answer = raw.sized(items)
    shares = [await held_up_by_an_answer(stack, items) for _ in range(TRIES)]
    assert min(shares) < 0.4, shares


async def held_up_by_an_answer(stack: Stack, items: bytes) -> float:
    """The share of the time until this answer arrives that another client waits for
    one answer."""
    loop = asyncio.get_running_loop()
    async with calling(stack.origin) as other, calling(stack.origin) as caller:
        began = asked = loop.time()
        longest = 0.0
        reading = asyncio.create_task(caller.reply())
        await caller.send(post(b"{}"))
        while not reading.done():
            await other.send(get(b"/v1/responses/%2e%2e"))
            assert (await other.reply()).status == 404
            longest, asked = max(longest, loop.time() - asked), loop.time()
        assert (await reading).body == items
    return longest / (loop.time() - began)
