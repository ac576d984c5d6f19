"""The bodies of one request while it is active, within a bound on memory. Pure."""

from typing import Final

from libs.common.headers import Header, Kinds, kinds
from libs.common.providers.key_echoes import NO_KEY

CHUNK_OVERHEAD: Final = 64  # bytes that Python needs for a chunk besides its content
REQUEST_OVERHEAD: Final = 1_024  # bytes for a request: its notes and queue entry

FULL_HERE: Final = "the gateway's queue was full"


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
    """The bodies of one request. The event loop fills it; after `end` it belongs to the
    worker thread."""

    __slots__ = (
        *("_budget", "_chunks", "_limit", "_room", "held", "original_bytes", "sent"),
        *("request_id", "created_at_ms", "response_bytes", "response_dropped"),
        *("request_body", "request_bytes", "request_dropped", "request_kinds"),
        "response_kinds",
    )

    # Set by `end`.
    request_id: str
    created_at_ms: int  # the request's
    request_bytes: int  # bytes of the request body, kept or not
    response_bytes: int  # bytes of the answer, kept or not

    def __init__(
        self, body: bytes, request_kinds: Kinds, limit: int, budget: Budget
    ) -> None:
        self.request_body = body
        self.request_kinds = request_kinds
        self.request_dropped: str | None = None  # why the body is missing
        self.response_kinds: Kinds | None = None  # set when the answer begins
        self.response_dropped: str | None = None
        self.sent = NO_KEY  # the upstream key, masked in the answer
        self._limit = limit
        self._budget = budget
        self._chunks: list[bytes] = []
        self._room = limit
        self.held = 0  # bytes reserved in the budget
        self.original_bytes = 0  # bytes of the answer so far, kept or not

    def response_body(self) -> bytes:
        """The answer, up to the limit."""
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def keep(self, chunk: bytes) -> None:
        """Records a chunk of the answer."""
        size, room = len(chunk), self._room
        self.original_bytes += size
        if size > room:
            if room <= 0:
                return
            chunk, size = chunk[:room], room
        if not self._budget.take(size + CHUNK_OVERHEAD):
            self._give_up()
            return
        self.held += size + CHUNK_OVERHEAD
        self._room = room - size
        self._chunks.append(chunk)

    def whole(self, headers: list[Header], body: bytes) -> None:
        """Records an answer that came in one piece."""
        self.response_kinds = kinds(headers)
        self.keep(body)

    def _give_up(self) -> None:
        self.discard()
        self.response_dropped = FULL_HERE

    def discard(self) -> None:
        """Drops the answer and frees its bytes."""
        self._budget.give_back(self.held)
        self.held = self._room = 0
        self._chunks = []

    def end(self, request_id: str, created_at_ms: int) -> None:
        """Passes the capture to the worker thread; later chunks are ignored. Its bytes
        count until they are sent."""
        self.request_id, self.created_at_ms = request_id, created_at_ms
        self.response_bytes = self.original_bytes
        self._room = 0
        self.request_bytes = len(self.request_body)
        size = min(self.request_bytes, self._limit) + REQUEST_OVERHEAD
        if self._budget.take(size):
            self.held += size
            return
        self.request_dropped, self.request_body = FULL_HERE, b""
