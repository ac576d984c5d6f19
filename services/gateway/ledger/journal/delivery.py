"""When is an event safe? Not when Redis took it, but when SQL did: until then the
journal keeps it, and fills the stream again from what it kept.

Ingest deletes an entry of the stream after its commit, so all that is older than the
stream's first entry is stored (or a dead letter). A gateway's calls are answered in
their order, so what it sent before a heartbeat is not younger than the last entry
that the heartbeat's answer names. Each beat leaves such a mark; it is safe once the
first entry has passed it."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import structlog

from libs.common.contracts.events import EVENT_VERSION
from libs.common.errors import RedisAway
from libs.common.redis.shared_connection import Refused, SharedConnection
from libs.common.routing.types import Beat, StreamEnds
from services.gateway.ledger.journal.journal import EVENT_KINDS, STREAM_KINDS, Journal
from services.gateway.ledger.journal.segments import Kind, Record

log = structlog.get_logger()

BATCH = 500
# A Redis that failed over, or came back from its disk, may lack its last moments.
DOUBTED_S = 10.0


@dataclass(frozen=True, slots=True)
class Mark:
    """So much was sent at `at`, and is not younger than entry `last_id`."""

    at: float
    position: int
    events: int
    last_id: tuple[int, int]


class Report(msgspec.Struct, omit_defaults=False):
    """What a gateway says of its books: the fields of `contracts.GatewayEvent`."""

    created_at_ms: int
    gateway_id: str
    started_at_ms: int
    accepted: int
    ended: int
    held: int
    state: str = "running"


class Safekeeper:
    """Knows what of the journal is safe, and sends again what is not."""

    def __init__(self, journal: Journal, redis: SharedConnection, stream: str) -> None:
        self.journal = journal
        self._redis = redis
        self._stream = stream
        self._marks: deque[Mark] = deque()
        self._safe_events = 0
        self._ends: StreamEnds | None = None
        self._born = ""
        self._connections = 0
        self._in_hand = 0  # events that are being sent again
        self._flushing: asyncio.Task[int] | None = None
        self._checked = (0, 0, 0)

    def __len__(self) -> int:
        """About so many events wait to be taken by Redis."""
        return self.journal.unsent_events + self._in_hand

    @property
    def held(self) -> int:
        """Requests that ended and are not known to be stored."""
        return self.journal.events - self._safe_events

    def report(self, now_ms: int, state: str = "running") -> bytes:
        """The books, for the next beat."""
        counters = self.journal.counters
        return msgspec.json.encode(
            Report(
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
        """To be taken right before a beat is sent, and given to `beat_answered`.
        None while not all was sent: what is being sent again comes after the beat."""
        if self.journal.unsent_from is not None or self._in_hand:
            return None
        return self.journal.written, self.journal.events

    def beat_answered(self, sent: tuple[int, int] | None, beat: Beat) -> None:
        """Learn from a beat what is safe, or that Redis forgot what it had."""
        now = asyncio.get_running_loop().time()
        anew = self._connections != self._redis.connections
        self._connections = self._redis.connections
        if beat.born != self._born or self._is_another(beat.ends):
            self._send_again(self.journal.safe)
        elif anew:
            self._send_again(self._position_before(now - DOUBTED_S))
        elif sent is not None and self.journal.unsent_from is None:
            self._mark(Mark(now, *sent, beat.ends.last_id))
        self._ends, self._born = beat.ends, beat.born
        self._settle(beat.ends)

    def _is_another(self, ends: StreamEnds) -> bool:
        """Was the stream deleted? Its counters never go back."""
        before = self._ends
        return before is not None and (
            ends.last_id < before.last_id or ends.added < before.added
        )

    def _position_before(self, moment: float) -> int:
        """What was sent before that moment ends here."""
        known = [mark.position for mark in self._marks if mark.at < moment]
        return max(known, default=self.journal.safe)

    def _send_again(self, position: int) -> None:
        """Marks beyond are of entries that may be gone."""
        while self._marks and self._marks[-1].position > position:
            self._marks.pop()
        if position < self.journal.written:
            self.journal.unsent(position)

    def _mark(self, mark: Mark) -> None:
        if not self._marks or mark.position > self._marks[-1].position:
            self._marks.append(mark)

    def _settle(self, ends: StreamEnds) -> None:
        safe: Mark | None = None
        while self._marks and ends.stored(self._marks[0].last_id):
            safe = self._marks.popleft()
        if safe is not None:
            self._safe_events = safe.events
            self.journal.settle(safe.position)

    # Sending again ---------------------------------------------------------------

    def start_flush(self) -> None:
        """Send again beside the beats: a long way back must not silence them."""
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self.flush())

    async def flush(self) -> int:
        """Send what Redis has not taken, oldest first; returns how many went. An
        event sent twice is stored once, so what is in doubt is sent again."""
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
            log.debug("redis took no more", action="flush_broken", cause=str(cause))
        finally:
            # Whatever was not confirmed stays, cancellation included.
            self._in_hand = 0
            if start < end:
                journal.unsent(start)
                journal.unsent_events += max(0, waiting - sent - 1)
        if sent:
            log.info("events sent again", action="journal_sent", events=sent)
        return sent

    def _append(self, record: Record) -> "asyncio.Future[object]":
        return self._redis.call(*self._entry(record.kind, record.id, record.data))

    def _entry(self, kind: Kind, id_: str, data: bytes) -> tuple[object, ...]:
        return (
            "XADD", self._stream, "*", "kind", STREAM_KINDS[kind],
            "id", id_, "v", EVENT_VERSION, "data", data,
        )  # fmt: skip

    def publish(self, now_ms: int) -> None:
        """Have the books stored as they are now. Should this get lost, the next one
        will do, or the last report to Redis, or the journal."""
        told = self._redis.call(
            *self._entry(
                Kind.GATEWAY,
                f"{self.journal.gateway_id}:{now_ms}",
                self.report(now_ms),
            )
        )
        told.add_done_callback(lambda done: done.cancelled() or done.exception())

    def sign_on(self, now_ms: int) -> None:
        """Have SQL know of these books before anything is in them: should this
        process and Redis die together, they are missed until they are found."""
        self.journal.adopt(
            Kind.GATEWAY, f"{self.journal.gateway_id}:opened", self.report(now_ms)
        )

    def sign_off(self, now_ms: int) -> None:
        """Nothing more will come: the books are closed."""
        self.journal.adopt(
            Kind.GATEWAY,
            f"{self.journal.gateway_id}:closed",
            self.report(now_ms, "closed"),
        )

    # Upkeep ------------------------------------------------------------------------

    async def upkeep(self) -> None:
        """What takes system calls: once a beat, in a thread."""
        journal, counters = self.journal, self.journal.counters
        checked = journal.safe, counters.accepted, counters.ended
        if checked != self._checked:
            self._checked = checked
            journal.check()
        if journal.wants_upkeep:
            journal.take_spare(await asyncio.to_thread(journal.upkeep))


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The events among them, some at a time."""
    batch: list[Record] = []
    for record in records:
        if record.kind in EVENT_KINDS:
            batch.append(record)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
