"""Captures request and response bodies for SQL.

The event loop only keeps references to bytes that it holds anyway, and queues them
once per request; a thread (`worker.py`) decompresses, redacts, compresses and sends
them. The bytes held by one gateway are bounded: beyond the bound bodies are dropped and
a marker row says so. No request waits for a capture."""

import asyncio
import queue
import threading
from typing import Protocol

from prometheus_client import Counter

from libs.common.headers import NO_KINDS, Header, Kinds, kinds
from libs.common.providers.key_echoes import NO_KEY
from services.gateway.capture.packing import RawBody, RawPayload

DROPPED = Counter(
    "proxy_capture_dropped_total",
    "Captured requests without bodies, or lost with their marker, by reason.",
    ["reason"],
)

CHUNK_OVERHEAD = 64  # bytes that Python needs for a chunk besides its content
REQUEST_OVERHEAD = 1_024  # bytes for a request: its notes and queue entry
MOST_WAITING = 20_000  # requests in the queue, including mere markers
BATCH = 64  # requests; more would have left the CPU cache when they are sent
BATCH_BYTES = 8_388_608
TICK_S = 0.1  # how long bodies are collected before they are sent

FULL_HERE = "the gateway's queue was full"


class Budget:
    """Limits the bytes held. Needs no lock: each of its two counters is written by one
    thread only."""

    __slots__ = ("_freed", "_limit", "_taken")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._freed = 0

    @property
    def held(self) -> int:
        return self._taken - self._freed

    def take(self, size: int) -> bool:
        """Reserves bytes; False when there is no room. For the event loop."""
        taken = self._taken + size
        if taken - self._freed > self._limit:
            return False
        self._taken = taken
        return True

    def give_back(self, size: int) -> None:
        """Cancels a reservation. For the event loop."""
        self._taken -= size

    def free(self, size: int) -> None:
        """Frees bytes that were sent or dropped. For the worker thread."""
        self._freed += size


class Capture:
    """The bodies of one active request."""

    __slots__ = (
        *("_budget", "_chunks", "_ended", "_limit", "_room", "_unkept"),
        *("full", "held", "request_body", "request_kinds", "response_kinds"),
        *("sent", "original_bytes"),
    )

    def __init__(
        self, body: bytes, request_kinds: Kinds, limit: int, budget: Budget
    ) -> None:
        self.request_body = body
        self.request_kinds = request_kinds
        self.response_kinds: Kinds | None = None  # set when the answer begins
        self.sent = NO_KEY  # the upstream key, masked in the answer
        self._limit = limit
        self._budget = budget
        self._chunks: list[bytes] = []
        self._room = limit
        self._unkept: int | None = (
            None  # size of a request body dropped for lack of room
        )
        self._ended: tuple[str, int, int] = ("", 0, 0)
        self.held = 0  # bytes reserved in the budget
        self.original_bytes = 0  # bytes of the answer, kept or not
        self.full = False  # the budget was exhausted: the answer is not kept

    def keep(self, chunk: bytes) -> None:
        """Records a chunk of the answer."""
        size = len(chunk)
        self.original_bytes += size
        if self._room <= 0:
            return
        if size > self._room:
            chunk = chunk[: self._room]
            size = self._room
        if not self._budget.take(size + CHUNK_OVERHEAD):
            self._give_up()
            return
        self.held += size + CHUNK_OVERHEAD
        self._room -= size
        self._chunks.append(chunk)

    def whole(self, headers: list[Header], body: bytes) -> None:
        """Records an answer that came in one piece."""
        self.response_kinds = kinds(headers)
        self.keep(body)

    def _give_up(self) -> None:
        self.discard()
        self.full = True

    def discard(self) -> None:
        """Drops the answer and frees its bytes."""
        self._budget.give_back(self.held)
        self.held = self._room = 0
        self._chunks = []

    def end(self, request_id: str, created_at_ms: int) -> None:
        """Passes the capture to the worker thread; later chunks are ignored. Its bytes
        count until they are sent."""
        self._ended = (request_id, created_at_ms, self.original_bytes)
        self._room = 0
        size = min(len(self.request_body), self._limit) + REQUEST_OVERHEAD
        if self._budget.take(size):
            self.held += size
            return
        self._unkept, self.request_body = len(self.request_body), b""

    def raw(self) -> RawPayload:
        """The captured bodies, for the worker thread."""
        request_id, created_at_ms, original_bytes = self._ended
        answer = None
        if self.full:
            answer = RawBody((), NO_KINDS, original_bytes, FULL_HERE)
        elif self.response_kinds is not None:
            answer = RawBody(self._chunks, self.response_kinds, original_bytes)
        if self._unkept is not None:
            request = RawBody((), NO_KINDS, self._unkept, FULL_HERE)
        else:
            body = self.request_body
            request = RawBody((body[: self._limit],), self.request_kinds, len(body))
        return RawPayload(request_id, created_at_ms, request, answer, self.sent)


class Served(Protocol):
    """The worker thread, which empties the inbox."""

    def start(self) -> None: ...

    def finish(self, within_s: float) -> None: ...


class CaptureRecorder:
    """Starts captures and queues them when their request ends. For the event loop."""

    def __init__(self, limit: int, inbox: "Inbox", worker: Served | None) -> None:
        """`limit`: bytes kept of each body; 0 disables capture."""
        self._limit = limit
        self._inbox = inbox
        self._worker = worker

    @property
    def held(self) -> int:
        """Bytes held in memory."""
        return self._inbox.budget.held

    def start(self) -> None:
        if self._worker is not None:
            self._worker.start()

    def begin(self, body: bytes, request_kinds: Kinds) -> Capture | None:
        """Starts the capture of a request; None when capture is disabled."""
        if self._limit == 0:
            return None
        return Capture(body, request_kinds, self._limit, self._inbox.budget)

    def hand_over(self, request_id: str, created_at_ms: int, capture: Capture) -> None:
        """Queues the capture of a request that ended."""
        capture.end(request_id, created_at_ms)
        if not self._inbox.put(capture):
            capture.discard()
            DROPPED.labels("queue").inc()

    async def close(self, within_s: float) -> None:
        """Sends queued captures until the time is up; the rest is lost."""
        if self._worker is not None:
            await asyncio.to_thread(self._worker.finish, within_s)


class Inbox:
    """The queue between the event loop and the worker thread."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._queue: queue.SimpleQueue[Capture] = queue.SimpleQueue()
        self._closing = threading.Event()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def put(self, capture: Capture) -> bool:
        """Adds a capture; False when the queue is full."""
        if self._queue.qsize() >= MOST_WAITING:
            return False
        self._queue.put(capture)
        return True

    def close(self) -> None:
        """No capture follows."""
        self._closing.set()

    def take(self) -> tuple[list[Capture], bool]:
        """The next batch, and whether more may follow."""
        more = not self._closing.is_set()
        if self.waiting < BATCH:
            # Polls instead of blocking on the queue: waking a thread for each request
            # would cost the event loop more than the rest of the capture.
            self._closing.wait(TICK_S)
        batch: list[Capture] = []
        size = 0
        while len(batch) < BATCH and size < BATCH_BYTES:
            try:
                capture = self._queue.get_nowait()
            except queue.Empty:
                break
            batch.append(capture)
            size += capture.held
        return batch, more or bool(batch)
