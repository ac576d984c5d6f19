"""Captured bodies from a gateway's recorder through a real Redis and a real ingest
process into either database."""

import gzip
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as blocking
from redis.asyncio import Redis

from libs.common.contracts.events import Row, encode
from libs.common.contracts.payloads import Note, Payload
from libs.common.headers import NO_KINDS, kinds
from libs.common.redis import keys
from libs.common.redis.capture_batches import packed, unpacked
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.settings.services import GatewaySettings
from libs.common.store.store import Store
from services.gateway.capture import recorder as capturing_of
from services.gateway.capture import worker
from services.gateway.capture.recorder import CaptureRecorder
from services.gateway.capture.worker import FULL_THERE, make_capturer
from services.router.admin.captured_bodies import shown
from tests.support.databases.sql import fetch, setting
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, ingesting
from tests.support.processes.waiting import eventually
from tests.support.values.telemetry import T0_MS, as_redis_gives, request_event

pytestmark = pytest.mark.asyncio

STREAM, GROUP = "telemetry:events", "responses-proxy-workers"
PAYLOADS = keys.payloads(STREAM)
JSON = [(b"content-type", b"application/json")]
ASKED = {"model": "gpt-5.5", "instructions": "SECRET", "input": [{"content": "SECRET"}]}
REDACT = "input[*].content,instructions,output"
ZIPPED = [(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")]
EVENTS = [
    {"type": "response.output_text.delta", "output_index": 0, "delta": "SECRET"},
    {"type": "response.completed",
     "response": {"id": "resp_1", "instructions": "SECRET", "output": ["SECRET"]}},
]  # fmt: skip


@asynccontextmanager
async def capturing(redis_url: str, **settings: str) -> AsyncIterator[CaptureRecorder]:
    """What a gateway holds; when the context is left, everything was sent."""
    environ = {"PROXY_REDIS_URL": redis_url, **settings}
    capturer = make_capturer(GatewaySettings.read(environ))
    capturer.start()
    yield capturer
    await capturer.close(10)


def serve(capturer: CaptureRecorder, id_: str = "req-1", padding: int = 0) -> None:
    """One request with a compressed stream for an answer."""
    asked = json.dumps(ASKED | {"padding": "x" * padding}).encode()
    capture = capturer.begin(asked, kinds(JSON))
    assert capture is not None
    frames = "".join(f"data: {json.dumps(event)}\n\n" for event in EVENTS)
    wire = gzip.compress(frames.encode())
    for at in range(0, len(wire), 7):
        capture.keep(wire[at : at + 7])
    capture.response_kinds = kinds(ZIPPED)
    capturer.hand_over(id_, T0_MS, capture)


@pytest.fixture
def ingest(tmp_path: Path, valkey: str, url: str) -> Iterator[Process]:
    environ = {"PROXY_REDIS_URL": valkey, **setting(url)}
    with ingesting(tmp_path, environ) as started:
        yield started


async def emptied(redis: Redis) -> bool:
    return await redis.xlen(PAYLOADS) == 0 and await redis.xlen(STREAM) == 0


async def bodies(store: Store, id_: str = "req-1") -> dict[str, Any]:
    row = await store.request(id_)
    assert row is not None
    return shown(await store.payloads(row))


async def entries(redis: Redis) -> list[Payload]:
    """One for each request, as ingest reads them."""
    found: Any = await redis.xrange(PAYLOADS)
    return [payload for _, fields in found for payload in unpacked(fields[b"data"])]


async def test_bodies_are_stored_redacted_beside_their_request(
    valkey: str, redis: Redis, store: Store, ingest: Process, url: str
) -> None:
    stream = TelemetryStream(redis, STREAM, GROUP)
    await stream.append("request", "req-1", encode(request_event()))
    async with capturing(valkey, PROXY_REDACT=REDACT) as capturer:
        serve(capturer)
        serve(capturer)  # sent twice, as after a lost reply
    await eventually(lambda: emptied(redis))

    found = await bodies(store)
    asked = json.loads(found["request"]["body"])
    assert asked == {"model": "gpt-5.5", "instructions": "[redacted]",
                     "input": [{"content": "[redacted]"}], "padding": ""}  # fmt: skip
    answer = found["response"]
    assert answer["body"].count("[redacted]") == 3
    assert "response.completed" in answer["body"]
    assert not answer["truncated"]
    assert fetch(url, "SELECT count(*) FROM payloads") == [(2,)]
    assert fetch(url, "SELECT count(*) FROM dead_letters") == [(0,)]
    assert ingest.end(signal.SIGTERM) == 0
    assert await redis.xinfo_consumers(PAYLOADS, GROUP) == []


async def test_nothing_unredacted_reaches_redis(valkey: str, redis: Redis) -> None:
    async with capturing(valkey, PROXY_REDACT=REDACT) as capturer:
        serve(capturer)
    (entry,) = await entries(redis)
    for body in (entry.request_body, entry.response_body):
        assert body
        assert b"SECRET" not in body  # small bodies are not compressed here
    assert b"SECRET" not in entry.described()


async def test_bodies_of_a_gateway_that_lost_redis_arrive_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PAUSE_S", 0.05)
    port = free_port()
    async with capturing(f"redis://127.0.0.1:{port}/0") as capturer:
        for n in range(3):
            serve(capturer, f"r{n}")
        with running_valkey(tmp_path, port) as url:
            async with connect(url) as redis:

                async def arrived() -> bool:
                    return len(await entries(redis)) == 3

                await eventually(arrived)
        serve(capturer, "later")
        with running_valkey(tmp_path, port) as url:  # empty again
            async with connect(url) as redis:

                async def again() -> bool:
                    return len(await entries(redis)) == 1

                await eventually(again)
    assert capturer.held == 0


async def test_a_backlog_of_bodies_stops_at_its_bound_and_metadata_goes_on(
    valkey: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(capturing_of, "BATCH", 16)
    bound = 200_000
    stream = TelemetryStream(redis, STREAM, GROUP)
    async with capturing(valkey, PROXY_CAPTURE_BACKLOG_BYTES=str(bound)) as capturer:
        for n in range(300):
            noise = "".join(f"{n * i * 7919 % 99991:x}" for i in range(2_000))
            capture = capturer.begin(noise.encode(), NO_KINDS)
            assert capture is not None
            capturer.hand_over(f"r{n}", T0_MS, capture)
            if n % 30 == 0:
                event = encode(request_event(f"r{n}"))
                await stream.append("request", f"r{n}", event)
    used = await redis.memory_usage(PAYLOADS, samples=0) or 0
    found = await entries(redis)
    markers = [entry for entry in found if entry.request_body is None]
    assert len(found) == 300
    assert 50 < len(markers) < 300
    assert FULL_THERE.encode() in markers[-1].described()
    # The limit may be exceeded by one batch; markers are small.
    assert used < bound + 64 * 10_000 + len(markers) * 1_000
    assert await stream.depth() == 10  # the ledger counts these as pending: no bodies


def alone(payload: Payload) -> dict[Any, Any]:
    """The fields of an entry with this payload only."""
    return dict(as_redis_gives(packed([payload])))


async def test_poison_among_bodies_is_parked_and_the_rest_stored(
    valkey: str, redis: Redis, store: Store, ingest: Process, url: str
) -> None:
    junk: list[dict[Any, Any]] = [
        {"what": "is this"},
        {"kind": "payload", "id": "a", "v": 1, "data": "{}"},
        {"kind": "request", "id": "a", "v": 1, "data": "{}"},
        {"kind": "payloads", "v": 1, "data": b"no batch: SECRET"},
        {"kind": "payloads", "v": 2, "data": b"SECRET of a later version"},
        *map(alone, (
            Payload("a", 1, Note(1)),
            Payload("a", -1, Note(6), request_body=b"SECRET"),
            Payload("", 1, Note(6), request_body=b"SECRET"),
        )),
    ]  # fmt: skip
    for fields in junk:
        await redis.xadd(PAYLOADS, fields)
    note = Note(9_007_199_254_740_991, content_type="a\0b")
    odd = Payload("odd", 1_700_000_000_123, note, request_body=b"\0not zstd")
    await redis.xadd(PAYLOADS, alone(odd))
    async with capturing(valkey) as capturer:
        serve(capturer)
    await eventually(lambda: emptied(redis))
    stored = fetch(url, "SELECT request_id, direction FROM payloads ORDER BY 1, 2")
    assert stored == [("odd", "request"), ("req-1", "request"), ("req-1", "response")]
    letters = fetch(url, "SELECT data FROM dead_letters")
    assert len(letters) == len(junk)
    assert "SECRET" not in str(letters)
    counts = await store.counts()
    assert counts.dead_requests == 1  # the entry whose kind is request
    row: Row = {"id": "odd", "created_at": "2023-11-14T22:13:20.123Z"}
    body = shown(await store.payloads(row))["request"]
    assert (body["content_type"], body["body"]) == ("ab", None)


async def test_a_marker_says_why_there_is_no_body(
    valkey: str, redis: Redis, store: Store, ingest: Process
) -> None:
    stream = TelemetryStream(redis, STREAM, GROUP)
    await stream.append("request", "req-1", encode(request_event()))
    settings = {"PROXY_REDACT": "input", "PROXY_MAX_CAPTURE_BYTES": "400"}
    async with capturing(valkey, **settings) as capturer:
        serve(capturer, padding=1_000)
    await eventually(lambda: emptied(redis))
    asked = (await bodies(store))["request"]
    assert asked["body"] is None
    assert asked["dropped"] == "truncated, so it cannot be redacted"
    assert asked["original_bytes"] > 1_000


async def test_a_full_redis_keeps_its_last_room_for_events(
    valkey: str, redis: Redis
) -> None:
    used = (await redis.info("memory"))["used_memory"]
    with blocking.Redis.from_url(valkey) as client:
        client.config_set("maxmemory", int(used * 1.1))
        try:
            async with capturing(valkey) as capturer:
                serve(capturer)
        finally:
            client.config_set("maxmemory", 0)
    (entry,) = await entries(redis)
    assert entry.request_body is None
    assert FULL_THERE.encode() in entry.described()
