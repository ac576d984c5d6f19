"""Moves entries from a stream to SQL: reads them, claims those of dead consumers,
writes batches, and acknowledges them after the commit.

Three batches are in work at once, in order: one is read, the one before it is written,
and of the one before that the ids are acknowledged.

Until the acknowledgment Redis keeps the entries, and a replay changes nothing in SQL.
An entry that cannot be stored becomes a dead letter and does not block the others."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from operator import attrgetter
from typing import Protocol, TypeVar

import structlog

from libs.common.contracts.events import StreamedEvent
from libs.common.errors import RedisAway, StoreAway
from libs.common.redis.telemetry_stream import Entry
from libs.common.runtime.lifecycle import wait_for_stop
from libs.common.store.interface import DeadLetter, Unstorable, Write
from services.ingest import metrics
from services.ingest.alerts.outbox import Alerts
from services.ingest.backoff import Backoff
from services.ingest.batch import Batch, BatchRule, Decode
from services.ingest.decode import dead_letter, decode_entry, letter_fields
from services.ingest.event_log import tell
from services.ingest.usage import Usage

log = structlog.get_logger()

T = TypeVar("T")
_kind = attrgetter("kind")

COUNT_EVERY_S = 5.0  # between two looks at the length of a stream that is read idly
UNAVAILABLE = {"redis": "Redis is unavailable", "store": "the database is unavailable"}
RECOVERED = {
    "redis": "Redis is available again",
    "store": "the database is available again",
}


class Source(Protocol):
    """The methods of a stream that a consumer uses."""

    async def read(self, consumer: str, count: int, block_ms: int) -> list[Entry]: ...

    async def claim(
        self, consumer: str, count: int, min_idle_ms: int
    ) -> list[Entry]: ...

    async def acknowledge(
        self, ids: Sequence[str], dead: Sequence[Mapping[str, str]] = ()
    ) -> int: ...

    async def depth(self) -> int: ...

    async def leave(self, consumer: str) -> None: ...


class Sink(Protocol):
    """The methods of a store that a consumer uses."""

    def prepare(self, events: Sequence[StreamedEvent]) -> Write: ...

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int: ...


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """Options of a consumer."""

    name: str
    rule: BatchRule
    claim_s: float  # claim entries pending at another consumer for this long
    backoff: Backoff = field(default_factory=Backoff)
    decode: Decode = decode_entry
    stream: str = "events"  # label in metrics
    usage: Usage = field(default_factory=Usage)
    alerts: Alerts | None = None
    # Called with the stream and the age in seconds of what was stored.
    lagged: Callable[[str, float], None] = lambda _stream, _lag_s: None


class Consumer:
    def __init__(self, source: Source, sink: Sink, options: ConsumerOptions) -> None:
        self._source = source
        self._sink = sink
        self._options = options
        self._next_claim = 0.0
        self._next_count = 0.0
        # When the batches that are not acknowledged yet were begun.
        self._begun: deque[float] = deque()
        self._away: dict[str, str] = {}

    @property
    def away(self) -> Mapping[str, str]:
        """Unavailable services (`redis`, `store`) and their last error."""
        return self._away

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`, then store and acknowledge what was read."""
        async with asyncio.TaskGroup() as group:
            stored: asyncio.Task[list[DeadLetter] | None] | None = None
            last: asyncio.Task[None] | None = None  # acknowledgments
            last_but_one: asyncio.Task[None] | None = None
            while not stop.is_set():
                batch = await self._gather(stop, partial(_running, stored))
                if not batch.ids:
                    continue
                self._begun.append(batch.began)
                write = self._sink.prepare(batch.events)
                # This bounds the memory: two batches, and the ids of a third.
                for task in (stored, last_but_one):
                    if task:
                        await task
                store = self._retry(stop, "store", self._store, batch, write)
                stored = group.create_task(store)
                acknowledge = self._acknowledge(batch.ids, stored, last, stop)
                last_but_one, last = last, group.create_task(acknowledge)
        await self._once("redis", self._source.leave, self._options.name)

    async def _gather(self, stop: asyncio.Event, storing: Callable[[], bool]) -> Batch:
        """Read entries until the batch is due or `stop` is set."""
        rule, clock = self._options.rule, asyncio.get_running_loop().time
        batch = Batch(self._options.decode)
        while not stop.is_set():
            room, wait_s = rule.room(batch.size), rule.wait_s(batch.size)
            entries = await self._retry(
                stop, "redis", self._claim_or_read, room, wait_s
            )
            if not batch.ids:
                batch.began = clock()
            batch.add(entries or (), room)
            age_s = clock() - batch.began
            if rule.due(batch.size, age_s, storing=storing()):
                break
            if pause_s := rule.pause_s(batch.size, age_s):
                await wait_for_stop(stop, pause_s)
        return batch

    async def _claim_or_read(self, room: int, wait_s: float) -> list[Entry]:
        """Claim entries of dead consumers, which are older, or else read new ones."""
        name, claim_s = self._options.name, self._options.claim_s
        now = asyncio.get_running_loop().time()
        # A claim returns its own entries too if they are old enough.
        young = not self._begun or now - self._begun[0] < claim_s / 2
        if now >= self._next_claim and young:
            claimed = await self._source.claim(name, room, int(claim_s * 1000))
            if claimed:
                return claimed
            self._next_claim = now + claim_s
        return await self._read(room, wait_s)

    async def _read(self, room: int, wait_s: float) -> list[Entry]:
        name, block_ms = self._options.name, int(wait_s * 1000)
        entries = await self._source.read(name, room, block_ms)
        if not entries:
            await self._count()
        return entries

    async def _count(self) -> None:
        """Others may have a backlog while there is nothing to read."""
        now = asyncio.get_running_loop().time()
        if now >= self._next_count:
            depth = await self._source.depth()
            metrics.BACKLOG.labels(self._options.stream).set(depth)
            self._next_count = now + COUNT_EVERY_S

    async def _acknowledge(
        self,
        ids: Sequence[str],
        stored: "asyncio.Task[list[DeadLetter] | None]",
        before: "asyncio.Task[None] | None",
        stop: asyncio.Event,
    ) -> None:
        """Acknowledge a batch after it is stored, and after the one before. Gives up at
        `stop`: the entries stay pending, and another consumer claims them."""
        dead = await stored
        if before:
            await before
        if dead is not None:
            letters = [_as_fields(letter) for letter in dead]
            call = self._source.acknowledge
            depth = await self._retry(stop, "redis", call, ids, letters)
            metrics.BACKLOG.labels(self._options.stream).set(depth or 0)
        self._begun.popleft()

    async def _store(self, batch: Batch, write: Write) -> list[DeadLetter]:
        """Write events and dead letters to SQL; return the dead letters."""
        dead = list(batch.dead)
        with metrics.WRITE_SECONDS.time():
            for event, reason in await self._write(batch.events, write):
                dead.append(dead_letter(event.entry_id, letter_fields(event), reason))
            if self._options.alerts is not None:
                await self._options.alerts.add(batch.events)
            if dead:
                await self._sink.write_dead_letters(dead)
        self._record(batch, dead)
        return dead

    def _record(self, batch: Batch, dead: Sequence[DeadLetter]) -> None:
        """Count and log what was stored."""
        stored: Sequence[StreamedEvent] = batch.events
        if dead:
            rejected = {(letter.entry_id, letter.event_id) for letter in dead}
            stored = [e for e in stored if (e.entry_id, e.id) not in rejected]
        _count(stored, dead)
        lag_s = max(0.0, time.time() - batch.oldest_ms / 1000)
        metrics.LAG.set(lag_s)
        self._options.lagged(self._options.stream, lag_s)
        self._options.usage.count(stored)
        tell(stored, dead)

    async def _write(
        self, events: Sequence[StreamedEvent], write: Write
    ) -> list[tuple[StreamedEvent, str]]:
        """Write events. Return those that the database rejects, with the reason; they
        are found by halving the batch."""
        if not events:
            return []
        try:
            await write()
        except Unstorable as error:
            if len(events) == 1:
                return [(events[0], str(error))]
            half = len(events) // 2
            parts = events[:half], events[half:]
        else:
            return []
        return [
            rejected
            for part in parts
            for rejected in await self._write(part, self._sink.prepare(part))
        ]

    async def _retry(
        self,
        stop: asyncio.Event,
        what: str,
        call: Callable[..., Awaitable[T]],
        *args: object,
    ) -> T | None:
        """Retry with backoff until the call succeeds; return None if `stop` is set."""
        failures = 0
        while True:
            result = await self._once(what, call, *args)
            if result is not None:
                return result
            pause_s = self._options.backoff.pause_s(failures, random.random())  # noqa: S311 - jitter
            if await wait_for_stop(stop, pause_s):
                return None
            failures += 1

    async def _once(
        self, what: str, call: Callable[..., Awaitable[T]], *args: object
    ) -> T | None:
        """Call once; return None if `what` is unavailable."""
        try:
            result = await call(*args)
        except (RedisAway, StoreAway) as error:
            self._lost(what, error)
            return None
        metrics.UP[what].set(1)
        if self._away.pop(what, None):
            log.info(RECOVERED[what], action=f"{what}_back")
        return result

    def _lost(self, what: str, error: RedisAway | StoreAway) -> None:
        metrics.FAILURES.labels(what).inc()
        metrics.UP[what].set(0)
        if what not in self._away:
            log.warning(UNAVAILABLE[what], action=f"{what}_away", error=str(error))
        self._away[what] = str(error)


def _as_fields(letter: DeadLetter) -> dict[str, str]:
    return {k: str(v) for k, v in asdict(letter).items() if v is not None}


def _running(task: "asyncio.Task[list[DeadLetter] | None] | None") -> bool:
    return task is not None and not task.done()


def _count(stored: Sequence[StreamedEvent], dead: Sequence[DeadLetter]) -> None:
    for kind, count in Counter(map(_kind, stored)).items():
        metrics.EVENTS.labels(kind).inc(count)
    metrics.BATCHES.inc()
    metrics.DEAD_LETTERS.inc(len(dead))
