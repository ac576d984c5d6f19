"""The journal keeps what a gateway must not lose before it is in SQL: each accepted
request that has not ended, and the events of routing decisions and ended requests.

It is a log in memory-mapped files (`segments.py`). It is read only after a failure:
when Redis lost events, to send them again (`delivery.py`), or when this process
crashed, by another gateway (`recovery.py`). Writing never raises: without a disk the
journal continues in memory, and `problem` says so."""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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

MEMORY_SEGMENTS = 16  # segments kept at most while there is no disk
COUNTERS = struct.Struct("<QQQQ")  # started at (ms), safe, accepted, ended
SPARES = 2  # files kept for reuse, because their pages are already mapped
LEFT_ALONE = 8  # segments that may wait for their open requests to end
# A record larger than this part of a segment (1/4) is dropped. Ingest rejects events of
# that size, too.
LARGEST_RECORD_PART = 4
# As plain integers: arithmetic with members of an IntEnum takes longer.
_ACCEPTED: Final = int(Kind.ACCEPTED)
_DECISION: Final = int(Kind.DECISION)
_REQUEST: Final = int(Kind.REQUEST)


@dataclass(slots=True)
class Counters:
    """Requests of this gateway since it started."""

    accepted: int = 0
    ended: int = 0


class Journal:
    """Positions are offsets in the log, in bytes. All events before `safe` are in SQL
    or are dead letters. The log starts with the oldest segment that holds an event
    after `safe` or an open request."""

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
        self._open: dict[str, int] = {}  # request id -> position of its record
        self._carrying = False
        self.counters = Counters()
        self.events = 0  # request events written, including adopted ones
        self.safe = 0
        self.unsent_from: int | None = None
        self.unsent_events = 0
        self.lost = 0  # unsent events dropped for lack of room
        self.too_large = 0  # records dropped for their size
        self.corrupt = 0  # gaps in recovered journals of crashed gateways
        self.problem: str | None = None
        self._current = self._begin_segment(bounded=False)

    # The hot path -------------------------------------------------------------

    def accepted(self, request_id: str, head: bytes) -> None:
        """Records that a request began. `head` is the JSON of its event so far,
        without the last brace."""
        payload = b"%b\n%b" % (request_id.encode(), head)
        position = self._current.append(_ACCEPTED, payload)
        if position < 0:
            position = self._append_elsewhere(_ACCEPTED, payload)
        self._open[request_id] = position
        # After the record, because a new segment starts with the counters.
        self.counters.accepted += 1

    def ended(self, request_id: str, event: bytes) -> int:
        """Records that a request ended. Returns the position of its event, for
        `unsent`."""
        payload = b"%b\n%b" % (request_id.encode(), event)
        position = self._current.append(_REQUEST, payload)
        if position < 0:
            position = self._append_elsewhere(_REQUEST, payload)
        if request_id in self._open:
            del self._open[request_id]
        else:
            self.counters.accepted += 1
        self.counters.ended += 1
        self.events += 1
        return position

    def decided(self, decision_id: str, event: bytes) -> int:
        """Records a routing decision. Returns the position of its event."""
        payload = b"%b\n%b" % (decision_id.encode(), event)
        position = self._current.append(_DECISION, payload)
        if position < 0:
            position = self._append_elsewhere(_DECISION, payload)
        return position

    def unsent(self, position: int) -> None:
        """Marks the event at `position` as not delivered, to be sent again."""
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
            # Carried-over requests have already filled the new segment.
            position = self._begin_segment(bounded=False).append(kind, payload)
        return position

    # Events of crashed gateways -----------------------------------------------

    def adopt(self, kind: Kind, event_id: str, event: bytes) -> None:
        """Adds an event that this gateway has not sent, to be sent."""
        if kind is Kind.REQUEST or kind is Kind.ADOPTED:
            kind = Kind.ADOPTED
            self.events += 1
        self.unsent(self._append(kind, event_id.encode() + b"\n" + event))

    # Contents -----------------------------------------------------------------

    @property
    def written(self) -> int:
        """The position after the last record."""
        return self._current.filled

    @property
    def open(self) -> int:
        """The number of accepted requests that have not ended."""
        return len(self._open)

    @property
    def clear(self) -> bool:
        """Is there nothing to recover?"""
        left = self.read(self.safe, self.written)
        return not self._open and not any(r.kind in EVENT_KINDS for r in left)

    @property
    def crowded(self) -> bool:
        """Is half of the room in use?"""
        return len(self._segments) * 2 > self._max_segments

    @property
    def size_bytes(self) -> int:
        return len(self._segments) * self._segment_bytes

    def read(self, start: int, end: int) -> Iterator[Record]:
        """The records from `start` to `end`, without those that are freed during the
        iteration."""
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
        """The segment that holds `position`, or the first one after it."""
        for segment in self._segments:
            if segment.end > position:
                return segment
        return None

    # Room ---------------------------------------------------------------------

    def free_before(self, safe: int) -> None:
        """Notes that SQL has all events before `safe`, and frees segments that held
        nothing else. Copies requests that are still open forward."""
        self.safe = max(self.safe, safe)
        while len(self._segments) > 1 and self._segments[0].end <= self.safe:
            if self._holds_open(self._segments[0]) and not self._grown:
                return  # wait: most requests end soon, and copying costs time
            self._give_up_oldest()

    def _holds_open(self, segment: Segment) -> bool:
        """Does the segment hold an open request? They are in order of acceptance."""
        return bool(self._open) and next(iter(self._open.values())) < segment.end

    @property
    def _grown(self) -> bool:
        return len(self._segments) > min(LEFT_ALONE, self._max_segments // 2)

    def check(self) -> None:
        """Records the counters and `safe`, for recovery."""
        self._append(Kind.CHECK, b"\n" + self._counters())

    def _counters(self) -> bytes:
        counters = self.counters
        return COUNTERS.pack(
            self.started_at_ms, self.safe, counters.accepted, counters.ended
        )

    def _begin_segment(self, *, bounded: bool) -> Segment:
        """Starts a segment, in memory if no file can be created. `bounded`: drops the
        oldest segment when there are too many."""
        segment = self._spares.pop() if self._spares else self._new_segment()
        number = self._segments[-1].number + 1 if self._segments else 1
        segment.start(number)
        # This may be the first segment that recovery finds.
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
        """Frees the oldest segment for lack of room. Its unsent events are lost; its
        other events are lost if Redis loses them."""
        oldest = self._segments[0]
        if self.unsent_from is not None and self.unsent_from < oldest.end:
            lost = sum(
                record.kind in EVENT_KINDS
                for record in oldest.records(self.unsent_from)
            )
            self.lost += lost
            self.unsent_from = oldest.end
            log.error(
                "journal is full and dropped unsent events",
                action="journal_full",
                events=lost,
            )
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
        """Copies the open requests of the oldest segment to the current one."""
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
        """Deletes freed files and, if there is no spare, returns a new one for
        `take_spare`. May run in a thread: requests use none of this."""
        retired, self._retired = self._retired, []
        for segment in retired:
            self.folder.discard(segment)
        return None if self._spares else self._new_segment()

    def take_spare(self, spare: Segment | None) -> None:
        """Keeps a file for the next segment. A segment in memory needs no spare."""
        if spare is None:
            return
        if spare.path is not None and len(self._spares) < SPARES:
            self._spares.append(spare)
        else:
            self._retired.append(spare)

    def close(self) -> None:
        """Releases the folder. Events after `safe` stay for recovery."""
        self.folder.close(empty=self.clear)


EVENT_KINDS = frozenset({Kind.DECISION, Kind.REQUEST, Kind.ADOPTED, Kind.GATEWAY})
STREAM_KINDS = {
    Kind.DECISION: "decision",
    Kind.REQUEST: "request",
    Kind.ADOPTED: "request",
    Kind.GATEWAY: "gateway",
}
