"""Bodies kept for SQL beside the traffic. The hot path keeps references to bytes
that it has anyway, and hands them over once; a thread opens, redacts, compresses
and sends them.

What one gateway holds, of requests under way and of those that wait, is bounded:
beyond that bodies are dropped and a marker says so. Nothing here ever waits for
Redis on the event loop, and no request ever waits for anything here."""

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

CHUNK_OVERHEAD = 64  # what Python takes for a chunk beside its bytes
REQUEST_OVERHEAD = 1_024  # and for a request: its notes, its place in the queue
MOST_WAITING = 20_000  # requests, bare markers included
BATCH = 64  # more would be cold memory by the time they are sent
BATCH_BYTES = 8_388_608
TICK_S = 0.1  # so long bodies wait before they are sent together

FULL_HERE = "the gateway's queue was full"


class Budget:
    """Bytes held. Two counters, each written by one thread alone, need no lock."""

    __slots__ = ("_freed", "_limit", "_taken")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._freed = 0

    @property
    def held(self) -> int:
        return self._taken - self._freed

    def take(self, size: int) -> bool:
        """For the event loop."""
        if self.held + size > self._limit:
            return False
        self._taken += size
        return True

    def give_back(self, size: int) -> None:
        """For the event loop: what was taken is not needed after all."""
        self._taken -= size

    def free(self, size: int) -> None:
        """For the worker."""
        self._freed += size


class Capture:
    """The bodies of one request under way."""

    __slots__ = (
        *("_budget", "_chunks", "_ended", "_limit", "_room", "_unkept"),
        *("full", "held", "request_body", "request_kinds", "response_kinds"),
        *("sent", "travelled"),
    )

    def __init__(
        self, body: bytes, request_kinds: Kinds, limit: int, budget: Budget
    ) -> None:
        self.request_body = body
        self.request_kinds = request_kinds
        self.response_kinds: Kinds | None = None  # once there is an answer
        self.sent = NO_KEY  # the key that the upstream got, to be hidden in its answer
        self._limit = limit
        self._budget = budget
        self._chunks: list[bytes] = []
        self._room = limit
        self._unkept: int | None = None  # bytes of a request there is no room for
        self._ended: tuple[str, int, int] = ("", 0, 0)
        self.held = 0  # of the budget
        self.travelled = 0  # bytes of the answer
        self.full = False  # the budget was used up: the answer is not kept

    def keep(self, chunk: bytes) -> None:
        """Note a piece of the answer."""
        size = len(chunk)
        self.travelled += size
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
        """Note an answer of one piece."""
        self.response_kinds = kinds(headers)
        self.keep(body)

    def _give_up(self) -> None:
        self.discard()
        self.full = True

    def discard(self) -> None:
        """Forget the answer; also for a capture that is never handed over."""
        self._budget.give_back(self.held)
        self.held = self._room = 0
        self._chunks = []

    def end(self, request_id: str, created_at_ms: int) -> None:
        """From here on it is the worker's: what passes later is not kept. The budget
        holds it until it is sent."""
        self._ended = (request_id, created_at_ms, self.travelled)
        self._room = 0
        size = min(len(self.request_body), self._limit) + REQUEST_OVERHEAD
        if self._budget.take(size):
            self.held += size
            return
        self._unkept, self.request_body = len(self.request_body), b""

    def raw(self) -> RawPayload:
        """For the worker: what was kept."""
        request_id, created_at_ms, travelled = self._ended
        answer = None
        if self.full:
            answer = RawBody((), NO_KINDS, travelled, FULL_HERE)
        elif self.response_kinds is not None:
            answer = RawBody(self._chunks, self.response_kinds, travelled)
        if self._unkept is not None:
            request = RawBody((), NO_KINDS, self._unkept, FULL_HERE)
        else:
            body = self.request_body
            request = RawBody((body[: self._limit],), self.request_kinds, len(body))
        return RawPayload(request_id, created_at_ms, request, answer, self.sent)


class Served(Protocol):
    """Who takes from the inbox; a thread of its own."""

    def start(self) -> None: ...

    def finish(self, within_s: float) -> None: ...


class CaptureRecorder:
    """Begins captures and takes them over. For the event loop, but for its
    worker."""

    def __init__(self, limit: int, inbox: "Inbox", worker: Served | None) -> None:
        """`limit`: bytes of each body; 0 captures none."""
        self._limit = limit
        self._inbox = inbox
        self._worker = worker

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return self._inbox.budget.held

    def start(self) -> None:
        if self._worker is not None:
            self._worker.start()

    def begin(self, body: bytes, request_kinds: Kinds) -> Capture | None:
        """A request came, with this body."""
        if self._limit == 0:
            return None
        return Capture(body, request_kinds, self._limit, self._inbox.budget)

    def hand_over(self, request_id: str, created_at_ms: int, capture: Capture) -> None:
        """A request ended."""
        if self._inbox.waiting >= MOST_WAITING:
            capture.discard()
            DROPPED.labels("queue").inc()
            return
        capture.end(request_id, created_at_ms)
        self._inbox.put(capture)

    async def close(self, within_s: float) -> None:
        """Send what waits, as far as it goes in time; the rest is lost."""
        if self._worker is not None:
            await asyncio.to_thread(self._worker.finish, within_s)


class Inbox:
    """What waits for the worker."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._queue: queue.SimpleQueue[Capture] = queue.SimpleQueue()
        self._closing = threading.Event()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def put(self, capture: Capture) -> None:
        self._queue.put(capture)

    def close(self) -> None:
        """Nothing will follow."""
        self._closing.set()

    def take(self) -> tuple[list[Capture], bool]:
        """What came in the last moments; and whether something may follow."""
        more = not self._closing.is_set()
        if self.waiting < BATCH:
            # Nobody waits at the queue: waking a thread for each request would take
            # more of the event loop's time than all else here.
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
