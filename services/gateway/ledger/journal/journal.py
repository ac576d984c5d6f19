"""What a gateway must not forget, until it is in SQL: every request it accepted and
has not ended, and the events that say how requests were routed and how they ended.

A log in memory-mapped files (`segments.py`). It is read only after a death: of Redis,
whose stream is then filled again from here, or of this process, by a successor. It
never raises into a request: without a disk it lives in memory and says so."""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.gateway.ledger.journal.folder import JournalFolder
from services.gateway.ledger.journal.segments import (
    SEGMENT_BYTES,
    Kind,
    Record,
    Segment,
    in_memory,
)

log = structlog.get_logger()

MEMORY_SEGMENTS = 16  # kept at most while there is no disk
COUNTERS = struct.Struct("<QQQQ")  # started at ms; safe, accepted, ended
SPARES = 2  # files kept for reuse: pages that are there cost no fault
LEFT_ALONE = 8  # segments that wait for their requests to end
# Larger records are not kept: ingest would not take them as events either.
LARGEST_RECORD_PART = 4  # of a segment


@dataclass(slots=True)
class Counters:
    """Of this gateway's own requests, since it started."""

    accepted: int = 0
    ended: int = 0


class Journal:
    """Positions count the bytes of the log. Everything before `safe` is in SQL, or
    a dead letter; the log begins at the oldest segment with something after it, or
    with a request that is still open."""

    def __init__(
        self,
        root: Path,
        gateway_id: str,
        started_at_ms: int,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.folder = JournalFolder(root, gateway_id, segment_bytes)
        self.gateway_id = gateway_id
        self.started_at_ms = started_at_ms
        self._segment_bytes = segment_bytes
        self._max_segments = max(2, max_bytes // segment_bytes)
        self._largest = segment_bytes // LARGEST_RECORD_PART
        self._segments: deque[Segment] = deque()
        self._spares: list[Segment] = []
        self._retired: list[Segment] = []
        self._open: dict[str, int] = {}  # request -> its record's position
        self._carrying = False
        self.counters = Counters()
        self.events = 0  # request events written, adopted ones included
        self.safe = 0
        self.unsent_from: int | None = None
        self.unsent_events = 0
        self.lost = 0  # events given up unsent, for want of room
        self.too_large = 0
        self.corrupt = 0  # gaps in the journals of others that were taken over
        self.problem: str | None = None
        self._current = self._begin_segment(bounded=False)

    # The hot path -------------------------------------------------------------

    def accepted(self, request_id: str, head: bytes) -> None:
        """A request begins. `head` is its lease record: the JSON of its event so
        far, without the last brace."""
        # Counted once it is written: a new segment begins with the counters.
        self._open[request_id] = self._append(
            Kind.ACCEPTED, request_id.encode() + b"\n" + head
        )
        self.counters.accepted += 1

    def ended(self, request_id: str, event: bytes) -> int:
        """A request ended; the position of its event, by which `unsent` knows it."""
        position = self._append(Kind.REQUEST, request_id.encode() + b"\n" + event)
        if self._open.pop(request_id, None) is None:
            self.counters.accepted += 1
        self.counters.ended += 1
        self.events += 1
        return position

    def decided(self, decision_id: str, event: bytes) -> int:
        """An attempt was routed; the position of its event."""
        return self._append(Kind.DECISION, decision_id.encode() + b"\n" + event)

    def unsent(self, position: int) -> None:
        """Redis did not take the event at this position: it is sent again."""
        self.unsent_events += 1
        if self.unsent_from is None or position < self.unsent_from:
            self.unsent_from = position

    def _append(self, kind: int, payload: bytes) -> int:
        position = self._current.append(kind, payload)
        return position if position >= 0 else self._append_elsewhere(kind, payload)

    def _append_elsewhere(self, kind: int, payload: bytes) -> int:
        if len(payload) > self._largest:
            self.too_large += 1
            return self.written
        position = self._begin_segment(bounded=True).append(kind, payload)
        if position < 0:
            # Requests that were carried over have filled it already.
            position = self._begin_segment(bounded=False).append(kind, payload)
        return position

    # Events of others ---------------------------------------------------------

    def adopt(self, kind: Kind, event_id: str, event: bytes) -> None:
        """Take over an event that was not sent by this gateway."""
        if kind is Kind.REQUEST or kind is Kind.ADOPTED:
            kind = Kind.ADOPTED
            self.events += 1
        self.unsent(self._append(kind, event_id.encode() + b"\n" + event))

    # What there is ------------------------------------------------------------

    @property
    def written(self) -> int:
        """The position behind the last record."""
        return self._current.filled

    @property
    def open(self) -> int:
        """Requests accepted and not ended."""
        return len(self._open)

    @property
    def clear(self) -> bool:
        """Is there nothing that a successor would have to tell?"""
        left = self.read(self.safe, self.written)
        return not self._open and not any(r.kind in EVENT_KINDS for r in left)

    @property
    def crowded(self) -> bool:
        """Is half of the room taken?"""
        return len(self._segments) * 2 > self._max_segments

    @property
    def size_bytes(self) -> int:
        return len(self._segments) * self._segment_bytes

    def read(self, start: int, end: int) -> Iterator[Record]:
        """The records from `start` to `end`. What is given up meanwhile is left
        out; what is appended is not waited for."""
        position = start
        while position < end:
            segment = self._holding(position)
            if segment is None:
                return
            position = max(position, segment.base)
            for record in segment.records(position):
                if record.position >= end:
                    return
                yield record
            position = segment.end

    def _holding(self, position: int) -> Segment | None:
        """The first segment that reaches beyond `position`."""
        for segment in self._segments:
            if segment.end > position:
                return segment
        return None

    # Room ---------------------------------------------------------------------

    def settle(self, safe: int) -> None:
        """All before `safe` is in SQL: give up what only held that. Requests that
        are still open are carried over."""
        self.safe = max(self.safe, safe)
        while len(self._segments) > 1 and self._segments[0].end <= self.safe:
            if self._holds_open(self._segments[0]) and not self._grown:
                return  # most end by themselves; copying them costs time
            self._give_up_oldest()

    def _holds_open(self, segment: Segment) -> bool:
        """Those that began first come first."""
        return bool(self._open) and next(iter(self._open.values())) < segment.end

    @property
    def _grown(self) -> bool:
        return len(self._segments) > min(LEFT_ALONE, self._max_segments // 2)

    def check(self) -> None:
        """Note the counters and what is safe, for a successor."""
        self._append(Kind.CHECK, b"\n" + self._counters())

    def _counters(self) -> bytes:
        counters = self.counters
        return COUNTERS.pack(
            self.started_at_ms, self.safe, counters.accepted, counters.ended
        )

    def _begin_segment(self, *, bounded: bool) -> Segment:
        """Never raises: without a file it is memory. `bounded`: the oldest goes for
        it, if it must."""
        segment = self._spares.pop() if self._spares else self._new_segment()
        number = self._segments[-1].number + 1 if self._segments else 1
        segment.start(number)
        # A successor may find this segment to be the first.
        segment.append(Kind.CHECK, b"\n" + self._counters())
        self._segments.append(segment)
        self._current = segment
        if bounded and not self._carrying and self._too_many():
            self._drop_oldest()
        return self._current

    def _new_segment(self) -> Segment:
        try:
            segment = self.folder.new_segment()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.problem = f"journal: no room on disk ({reason}), in memory only"
            return in_memory(self._segment_bytes)
        self.problem = None
        return segment

    def _too_many(self) -> bool:
        in_memory_only = sum(segment.path is None for segment in self._segments)
        return len(self._segments) > 2 and (
            len(self._segments) > self._max_segments or in_memory_only > MEMORY_SEGMENTS
        )

    def _drop_oldest(self) -> None:
        """For want of room: what Redis never took is lost, the rest is without
        protection against a death of Redis."""
        oldest = self._segments[0]
        if self.unsent_from is not None and self.unsent_from < oldest.end:
            lost = sum(
                record.kind in EVENT_KINDS
                for record in oldest.records(self.unsent_from)
            )
            self.lost += lost
            self.unsent_from = oldest.end
            log.error("events lost", action="journal_full", events=lost)
        self._give_up_oldest()
        self.safe = max(self.safe, oldest.end)

    def _give_up_oldest(self) -> None:
        oldest = self._segments[0]
        self._carrying = True
        try:
            self._carry_over(oldest)
        finally:
            self._carrying = False
        self._segments.popleft()
        oldest.retire()
        self.take_spare(oldest)

    def _carry_over(self, oldest: Segment) -> None:
        """The oldest open requests come first."""
        while self._open:
            request_id, position = next(iter(self._open.items()))
            if position >= oldest.end:
                return
            del self._open[request_id]
            record = oldest.record(position)
            self._open[request_id] = (
                self.written
                if record is None
                else self._append(Kind.CARRIED, record.payload)
            )

    # Upkeep, off the hot path -------------------------------------------------

    @property
    def wants_upkeep(self) -> bool:
        return bool(self._retired) or not self._spares

    def upkeep(self) -> Segment | None:
        """Give files back, and make one when there is no spare, for `take_spare`.
        May run in a thread: it touches nothing that requests do."""
        retired, self._retired = self._retired, []
        for segment in retired:
            self.folder.discard(segment)
        return None if self._spares else self._new_segment()

    def take_spare(self, spare: Segment | None) -> None:
        """Have it ready for when the current segment is full. Memory can be had
        at any time, so only files are kept."""
        if spare is None:
            return
        if spare.path is not None and len(self._spares) < SPARES:
            self._spares.append(spare)
        else:
            self._retired.append(spare)

    def close(self) -> None:
        """The process ends. What is not safe stays for a successor."""
        self.folder.close(empty=self.clear)


EVENT_KINDS = frozenset({Kind.DECISION, Kind.REQUEST, Kind.ADOPTED, Kind.GATEWAY})
STREAM_KINDS = {
    Kind.DECISION: "decision",
    Kind.REQUEST: "request",
    Kind.ADOPTED: "request",
    Kind.GATEWAY: "gateway",
}
