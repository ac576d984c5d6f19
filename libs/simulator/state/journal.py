"""Records requests and answers for tests."""

import base64
import hashlib
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from libs.simulator.wire import Json

Pairs = list[tuple[str, str]]

_SHOWN = (
    "number",
    "time",
    "key",
    "account",
    "method",
    "path",
    "query",
    "headers",
    "body_size",
    "model",
    "stream",
    "previous_response_id",
    "status",
    "response_headers",
    "response_id",
    "response_length",
    "disconnected_at",
    "ended_at",
)


@dataclass
class Entry:
    """One request, or one WebSocket frame with the events that answered it."""

    key: str
    method: str
    target: str  # the raw request target: path and query
    headers: Pairs
    body: bytes
    account: str | None = None
    model: str | None = None
    stream: bool = False
    previous_response_id: str | None = None
    time: float = field(default_factory=time.time)
    status: int | None = None
    response_id: str | None = None
    response_length: int = 0
    # When the client disconnected before the answer was complete.
    disconnected_at: float | None = None
    ended_at: float | None = None
    number: int = 0
    body_size: int = 0
    response_body: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.body_size = len(self.body)
        self._body_sha = hashlib.sha256(self.body).hexdigest()
        self._sent_sha = hashlib.sha256()
        self._response_headers: tuple[tuple[str, str], ...] = ()
        self.keeps_body = False

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def asked(self, body: Json) -> None:
        """Record what the body asks for; the body may contain anything."""
        model, previous = body.get("model"), body.get("previous_response_id")
        self.model = model if isinstance(model, str) else None
        self.previous_response_id = previous if isinstance(previous, str) else None
        self.stream = body.get("stream") is True

    def answered(self, status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        self.status = status
        self._response_headers = tuple(headers)

    @property
    def response_headers(self) -> Pairs:
        # Plain strings instead of multidict's own type.
        return [(str(name), value) for name, value in self._response_headers]

    def sent(self, chunk: bytes) -> None:
        """Count body bytes passed to the connection."""
        self._sent_sha.update(chunk)
        self.response_length += len(chunk)
        if self.keeps_body:
            self.response_body += chunk

    def client_left(self) -> None:
        self.disconnected_at = time.time()

    def shown(self, *, bodies: bool) -> Json:
        shown: Json = {name: getattr(self, name) for name in _SHOWN}
        shown["body_sha256"] = self._body_sha
        shown["response_sha256"] = self._sent_sha.hexdigest()
        if bodies and self.keeps_body:
            shown["body"] = base64.b64encode(self.body).decode()
            shown["response_body"] = base64.b64encode(self.response_body).decode()
        return shown


class Journal:
    """The newest entries, the bodies of the newest of them, and counts per key."""

    def __init__(self, max_entries: int, max_body_bytes: int) -> None:
        self._entries: deque[Entry] = deque(maxlen=max_entries)
        self._with_bodies: deque[Entry] = deque()
        self._max_body_bytes = max_body_bytes
        self._counts: dict[str, Counter[str]] = {}
        self._arrived = 0
        self.keep_bodies = False

    def open(self, entry: Entry) -> None:
        self._arrived += 1
        entry.number = self._arrived
        entry.keeps_body = self.keep_bodies
        if not self.keep_bodies:
            entry.body = b""
        self._entries.append(entry)
        counts = self._counts_of(entry.key)
        counts["arrived"] += 1
        counts["open"] += 1
        counts[f"method_{entry.method}"] += 1

    def close(self, entry: Entry) -> None:
        if entry.ended_at is not None:
            return
        entry.ended_at = time.time()
        counts = self._counts_of(entry.key)
        counts["open"] -= 1
        counts["disconnected"] += entry.disconnected_at is not None
        counts[f"status_{entry.status}"] += 1
        if entry.keeps_body:
            self._with_bodies.append(entry)
            self._trim_bodies()

    def shown(self, limit: int | None, *, bodies: bool) -> Json:
        """The newest entries, oldest first."""
        entries = list(self._entries)
        if limit is not None:
            entries = entries[max(0, len(entries) - limit) :]
        return {
            "arrived": self._arrived,
            "entries": [entry.shown(bodies=bodies) for entry in entries],
        }

    def stats(self) -> dict[str, Any]:
        keys = {key: dict(counts) for key, counts in self._counts.items()}
        return {"arrived": self._arrived, "keys": keys}

    def clear(self) -> None:
        """Empty the journal; counts and entry numbers continue."""
        self._entries.clear()
        self._with_bodies.clear()

    def _counts_of(self, key: str) -> Counter[str]:
        # A flood of invented keys must not grow the table.
        if key not in self._counts and len(self._counts) >= 10_000:
            key = "(others)"
        return self._counts.setdefault(key, Counter())

    def _trim_bodies(self) -> None:
        def size(entry: Entry) -> int:
            return len(entry.body) + len(entry.response_body)

        total = sum(size(entry) for entry in self._with_bodies)
        while self._with_bodies and total > self._max_body_bytes:
            oldest = self._with_bodies.popleft()
            total -= size(oldest)
            oldest.keeps_body = False
            oldest.body = b""
            oldest.response_body = bytearray()
