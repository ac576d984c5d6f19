"""Captures request and response bodies for SQL.

The event loop only keeps references to bytes that it holds anyway, and queues them
once per request; a thread (`worker.py`) decompresses, redacts, compresses and sends
them. The bytes held by one gateway are bounded: beyond the bound bodies are dropped and
a marker row says so. No request waits for a capture."""

import asyncio
import queue
import threading
from typing import Protocol

from libs.common.headers import Kinds
from services.gateway.capture.capture import Budget, Capture
from services.gateway.metrics import Counter

DROPPED = Counter(
    "proxy_capture_dropped_total",
    "Captured requests without bodies, or lost with their marker, by reason.",
    "reason",
)

MOST_WAITING = 20_000  # requests in the queue, including mere markers
BATCH = 64  # requests; more would have left the CPU cache when they are sent
BATCH_BYTES = 8_388_608
TICK_S = 0.1  # how long bodies are collected before they are sent


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
            DROPPED.inc("queue")

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
