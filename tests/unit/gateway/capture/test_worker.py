"""Captured bodies are sent to Redis while it has room, otherwise markers are sent."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from libs.common.bodies.redaction import Redactor
from libs.common.contracts.payloads import Payload
from libs.common.errors import RedisAway
from libs.common.headers import NO_KINDS
from libs.common.redis.capture_stream import Backlog, Refused
from services.gateway.capture import recorder as capturing
from services.gateway.capture import worker as capture_worker
from services.gateway.capture.capture import (
    CHUNK_OVERHEAD,
    FULL_HERE,
    REQUEST_OVERHEAD,
    Budget,
)
from services.gateway.capture.packing import Packer
from services.gateway.capture.recorder import CaptureRecorder, Inbox
from services.gateway.capture.worker import FULL_THERE, UNMEASURED, CaptureWorker
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio

LIMIT = 100
ROOMY = 1_000_000


class Stream:
    """A Redis that can be unreachable."""

    def __init__(self) -> None:
        self.payloads: list[Payload] = []
        self.room = Backlog(0, 0, 0.0)
        self.measurable = True
        self.refuses = 0
        self.reachable = threading.Event()
        self.reachable.set()
        self.tries = 0
        self.closed = False

    def append(self, payloads: Sequence[Payload]) -> int:
        self.tries += 1
        if not self.reachable.is_set():
            raise RedisAway
        self.payloads += payloads
        return self.refuses

    def backlog(self) -> Backlog:
        if not self.measurable:
            raise Refused
        return self.room

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def stream() -> Stream:
    return Stream()


@asynccontextmanager
async def running(
    stream: Stream, queue_bytes: int = ROOMY, drain_s: float = 10
) -> AsyncIterator[CaptureRecorder]:
    """A capturer; when the context is left, all it could send was sent."""
    inbox = Inbox(Budget(queue_bytes))
    worker = CaptureWorker(inbox, Packer(LIMIT, Redactor(())), stream, 1_000)
    capturer = CaptureRecorder(LIMIT, inbox, worker)
    capturer.start()
    try:
        yield capturer
    finally:
        await capturer.close(drain_s)


def serve(capturer: CaptureRecorder, id_: str = "r", body: bytes = b"ask") -> None:
    """A request with an answer of two pieces."""
    capture = capturer.begin(body, NO_KINDS)
    assert capture is not None
    capture.keep(b"one,")
    capture.keep(b"two")
    capture.response_kinds = NO_KINDS
    capturer.hand_over(id_, 1, capture)


async def test_nothing_is_captured_at_a_limit_of_0() -> None:
    capturer = CaptureRecorder(0, Inbox(Budget(ROOMY)), None)
    capturer.start()
    assert capturer.begin(b"x", NO_KINDS) is None
    await capturer.close(1)


async def test_bodies_arrive_whole_and_their_memory_is_given_back(
    stream: Stream,
) -> None:
    async with running(stream) as capturer:
        for n in range(500):
            serve(capturer, f"r{n}")
        assert capturer.held > 0
    assert [payload.request_id for payload in stream.payloads] == [
        f"r{n}" for n in range(500)
    ]
    kept = stream.payloads[7]
    assert (kept.request_body, kept.response_body) == (b"ask", b"one,two")
    assert capturer.held == 0
    assert stream.closed


async def test_a_full_queue_leaves_markers(stream: Stream) -> None:
    stream.reachable.clear()
    one = REQUEST_OVERHEAD + len(b"askone,two") + 2 * CHUNK_OVERHEAD
    async with running(stream, queue_bytes=10 * one + 200) as capturer:
        for n in range(30):
            serve(capturer, f"r{n}")
            assert capturer.held <= 10 * one + 200
        stream.reachable.set()
    notes = stream.payloads
    assert [note.request_id for note in notes] == [f"r{n}" for n in range(30)]
    kept = [note for note in notes if note.request and note.request.dropped is None]
    assert len(kept) == 10
    assert all(n.request and n.request.dropped == FULL_HERE for n in notes[10:])
    assert capturer.held == 0


async def test_even_markers_have_a_bound(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capturing, "MOST_WAITING", 5)
    stream.reachable.clear()
    async with running(stream) as capturer:
        serve(capturer, "taken")

        async def tried() -> bool:
            return stream.tries > 0

        await eventually(tried)
        for n in range(20):
            serve(capturer, f"r{n}")
        held = capturer.held
        serve(capturer, "one more")
        assert capturer.held == held
        stream.reachable.set()
    assert len(stream.payloads) == 6


async def test_redis_comes_back(stream: Stream) -> None:
    stream.reachable.clear()
    async with running(stream) as capturer:
        serve(capturer, "a")

        async def tried() -> bool:
            return stream.tries > 1

        await eventually(tried)
        serve(capturer, "b")
        stream.reachable.set()
    assert [payload.request_id for payload in stream.payloads] == ["a", "b"]


async def test_the_end_is_not_waited_for_longer_than_it_may_take(
    stream: Stream,
) -> None:
    stream.reachable.clear()
    async with running(stream, drain_s=0.1) as capturer:
        serve(capturer)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 5
    assert stream.payloads == []
    assert capturer.held == 0


@pytest.mark.parametrize(
    "room", [Backlog(0, 1_001, 0.0), Backlog(0, 0, 0.81)], ids=["backlog", "memory"]
)
async def test_without_room_in_redis_bodies_go_first(
    stream: Stream, room: Backlog
) -> None:
    stream.room = room
    async with running(stream) as capturer:
        serve(capturer)
    (note,) = stream.payloads
    assert note.request
    assert note.response
    assert note.request.dropped == note.response.dropped == FULL_THERE
    assert (note.request_body, note.response_body) == (None, None)


async def test_then_markers(stream: Stream) -> None:
    stream.room = Backlog(capture_worker.MOST_ENTRIES + 1, 0, 0.0)
    async with running(stream) as capturer:
        serve(capturer)
    assert stream.payloads == []


async def test_a_backlog_that_cannot_be_measured_is_full(stream: Stream) -> None:
    stream.measurable = False
    async with running(stream) as capturer:
        serve(capturer)
    (note,) = stream.payloads
    assert note.request
    assert note.request.dropped == UNMEASURED


async def test_there_is_room_again(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_worker, "LOOK_EVERY_S", 0.0)
    stream.room = Backlog(0, 1_001, 0.0)
    async with running(stream) as capturer:
        serve(capturer, "a")

        async def sent() -> bool:
            return bool(stream.payloads)

        await eventually(sent)
        stream.room = Backlog(0, 0, 0.0)
        serve(capturer, "b")
    assert [p.request_body is not None for p in stream.payloads] == [False, True]


async def test_a_burst_does_not_outrun_the_look_at_the_backlog(stream: Stream) -> None:
    async with running(stream) as capturer:
        for n in range(8):
            serve(capturer, f"r{n}")

            async def sent(n: int = n) -> bool:
                return len(stream.payloads) > n

            await eventually(sent, every_s=0.001)
            stream.room = Backlog(0, 1_001, 0.0)  # it grew meanwhile
    kept = [p for p in stream.payloads if p.request_body is not None]
    assert 0 < len(kept) < 5


async def test_what_redis_refuses_does_not_block_the_rest(stream: Stream) -> None:
    stream.refuses = 1
    async with running(stream) as capturer:
        serve(capturer, "a")
        serve(capturer, "b")
    assert len(stream.payloads) == 2
