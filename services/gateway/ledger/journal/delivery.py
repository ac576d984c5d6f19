"""Delivers journal events to SQL at least once: tracks which events SQL has, and sends
the others again when Redis lost them.

Ingest deletes a stream entry after its commit, so every event older than the stream's
first entry is in SQL (or is a dead letter). Redis answers a gateway's calls in order,
so all that was sent before a heartbeat is no newer than the last entry id in its
answer. Each heartbeat therefore leaves a mark (journal position, last entry id). Once
the stream's first entry is newer than that id, SQL has all events up to that
position."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import structlog

from libs.common.contracts.events import EVENT_VERSION, GatewayEvent, encode
from libs.common.errors import RedisAway
from libs.common.redis.hot_connection import HotConnection
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.shared_connection import Refused
from libs.common.routing.types import Beat, StreamEnds
from services.gateway.ledger.journal.journal import EVENT_KINDS, STREAM_KINDS, Journal
from services.gateway.ledger.journal.segments import Kind, Record

log = structlog.get_logger()

BATCH = 500
# After a failover or a restart from disk, Redis may lack its last seconds.
DOUBTED_S = 10.0


@dataclass(frozen=True, slots=True)
class Mark:
    """At the loop time `at`, all events before `position` were sent and are no newer
    than the stream entry `last_id`."""

    at: float
    position: int
    events: int
    last_id: tuple[int, int]


class JournalDelivery:
    """Tracks how far SQL has the journal, and sends the rest again if necessary."""

    def __init__(
        self,
        journal: Journal,
        redis: HotConnection,
        stream: str,
        keys: Keys = DEFAULT,
    ) -> None:
        self.journal = journal
        self._resend = keys.function("resend_v1"), 2, keys.catalogue_version(), stream
        self._redis = redis
        self._stream = stream
        self._marks: deque[Mark] = deque()
        self._safe_events = 0
        self._ends: StreamEnds | None = None
        self._born = ""
        self._connections = 0
        self._in_hand = 0  # events being sent again at present
        self._flushing: asyncio.Task[int] | None = None
        self._checked = (0, 0, 0)

    def __len__(self) -> int:
        """Roughly the number of events that wait to be sent to Redis."""
        return self.journal.unsent_events + self._in_hand

    @property
    def held(self) -> int:
        """Ended requests that are not known to be in SQL."""
        return self.journal.events - self._safe_events

    def report(
        self, now_ms: int, state: Literal["running", "closed"] = "running"
    ) -> bytes:
        """The ledger counters, for the next heartbeat."""
        counters = self.journal.counters
        return encode(
            GatewayEvent(
                created_at_ms=now_ms,
                gateway_id=self.journal.gateway_id,
                started_at_ms=self.journal.started_at_ms,
                accepted=counters.accepted,
                ended=counters.ended,
                held=self.held,
                state=state,
            )
        )

    # Beats ---------------------------------------------------------------------

    def sent_so_far(self) -> tuple[int, int] | None:
        """The journal's position and event count, for `beat_answered`; call it right
        before the heartbeat is sent. None while events are being sent again, because
        those come after the heartbeat."""
        if self.journal.unsent_from is not None or self._in_hand:
            return None
        return self.journal.written, self.journal.events

    def beat_answered(self, sent: tuple[int, int] | None, beat: Beat) -> None:
        """Evaluates a heartbeat's answer: what SQL has, or that Redis lost data."""
        now = asyncio.get_running_loop().time()
        reconnected = self._connections != self._redis.connections
        self._connections = self._redis.connections
        if beat.born != self._born or self._is_another(beat.ends):
            self._send_again(self.journal.safe)
        elif reconnected:
            self._send_again(self._position_before(now - DOUBTED_S))
        elif sent is not None and self.journal.unsent_from is None:
            self._mark(Mark(now, *sent, beat.ends.last_id))
        self._ends, self._born = beat.ends, beat.born
        self._note_stored(beat.ends)

    def _is_another(self, ends: StreamEnds) -> bool:
        """Was the stream deleted? Its counters never decrease otherwise."""
        before = self._ends
        return before is not None and (
            ends.last_id < before.last_id or ends.added < before.added
        )

    def _position_before(self, moment: float) -> int:
        """The journal position up to which all was sent before `moment`."""
        known = [mark.position for mark in self._marks if mark.at < moment]
        return max(known, default=self.journal.safe)

    def _send_again(self, position: int) -> None:
        """Sends all from `position` on again. Drops later marks, whose entries may be
        lost."""
        while self._marks and self._marks[-1].position > position:
            self._marks.pop()
        if position < self.journal.written:
            self.journal.unsent(position)

    def _mark(self, mark: Mark) -> None:
        if not self._marks or mark.position > self._marks[-1].position:
            self._marks.append(mark)

    def _note_stored(self, ends: StreamEnds) -> None:
        safe: Mark | None = None
        while self._marks and ends.stored(self._marks[0].last_id):
            safe = self._marks.popleft()
        if safe is not None:
            self._safe_events = safe.events
            self.journal.free_before(safe.position)

    # Sending again ---------------------------------------------------------------

    def start_flush(self) -> None:
        """Runs `flush` in a task, so that a long one does not delay heartbeats."""
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self.flush())

    async def flush(self) -> int:
        """Sends the undelivered events, oldest first, and returns their number. Sends
        events again if in doubt, because SQL stores an event once."""
        journal = self.journal
        if journal.unsent_from is None or self._in_hand:
            return 0
        start, end = journal.unsent_from, journal.written
        self._in_hand = waiting = max(1, journal.unsent_events)
        journal.unsent_from, journal.unsent_events = None, 0
        sent = 0
        try:
            for batch in _batches(journal.read(start, end)):
                await asyncio.gather(*map(self._append, batch))
                sent += len(batch)
                start = batch[-1].position
            start = end
        except (RedisAway, Refused) as cause:
            log.debug(
                "sending journal events was interrupted",
                action="flush_broken",
                cause=str(cause),
            )
        finally:
            # Unconfirmed events stay undelivered, also after a cancellation.
            self._in_hand = 0
            if start < end:
                journal.unsent(start)
                journal.unsent_events += max(0, waiting - sent - 1)
        if sent:
            log.info("journal events sent again", action="journal_sent", events=sent)
        return sent

    def _append(self, record: Record) -> "asyncio.Future[object]":
        # By a function: it may have been counted to a budget before.
        return self._redis.call(
            *("FCALL", *self._resend),
            *(STREAM_KINDS[record.kind], record.id, record.data),
        )

    def _entry(self, kind: Kind, id_: str, data: bytes) -> tuple[object, ...]:
        return (
            "XADD", self._stream, "*", "kind", STREAM_KINDS[kind],
            "id", id_, "v", EVENT_VERSION, "data", data,
        )  # fmt: skip

    def publish(self, now_ms: int) -> None:
        """Sends a gateway event with the current counters. Its loss is harmless: the
        next one, the last heartbeat or the journal has the same counters."""
        sent = self._redis.call(
            *self._entry(
                Kind.GATEWAY,
                f"{self.journal.gateway_id}:{now_ms}",
                self.report(now_ms),
            )
        )
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())

    def announce(self, now_ms: int) -> None:
        """Adds the gateway event that announces this gateway to SQL. If this process
        and Redis fail together, SQL then knows that its requests are missing."""
        self.journal.adopt(
            Kind.GATEWAY, f"{self.journal.gateway_id}:opened", self.report(now_ms)
        )

    def announce_end(self, now_ms: int) -> None:
        """Adds the last gateway event, in the state `closed`."""
        self.journal.adopt(
            Kind.GATEWAY,
            f"{self.journal.gateway_id}:closed",
            self.report(now_ms, "closed"),
        )

    # Maintenance ---------------------------------------------------------------

    async def upkeep(self) -> None:
        """Work that needs system calls, once for each heartbeat, in a thread."""
        journal, counters = self.journal, self.journal.counters
        checked = journal.safe, counters.accepted, counters.ended
        if checked != self._checked:
            self._checked = checked
            journal.check()
        if journal.wants_upkeep:
            journal.take_spare(await asyncio.to_thread(journal.upkeep))


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The events among `records`, in batches."""
    batch: list[Record] = []
    for record in records:
        if record.kind in EVENT_KINDS:
            batch.append(record)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
