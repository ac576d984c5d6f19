"""The loop from stream to SQL: read, claim what a dead consumer left, write,
acknowledge after the commit.

Whatever goes wrong before the acknowledgement, Redis still has the entries and
the store absorbs the replay. Poison is parked and never blocks the rest."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import structlog

from libs.common.contracts.events import StreamedEvent
from libs.common.errors import RedisAway, StoreAway
from libs.common.redis.telemetry_stream import Entry
from libs.common.runtime.lifecycle import wait_for_stop
from libs.common.store.interface import DeadLetter, Unstorable
from services.ingest import metrics
from services.ingest.backoff import Backoff
from services.ingest.batch import Batch, BatchRule, Decode, Parts, itself
from services.ingest.decode import dead_letter, decode

log = structlog.get_logger()

T = TypeVar("T")


class Source(Protocol):
    """What the loop needs of the stream."""

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
    """What the loop needs of the store."""

    async def write(self, events: Sequence[StreamedEvent]) -> int: ...

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int: ...


@dataclass(frozen=True, slots=True)
class Habits:
    """How a consumer works."""

    name: str
    rule: BatchRule
    claim_s: float  # an entry that somebody held for this long is taken over
    backoff: Backoff = field(default_factory=Backoff)
    decode: Decode = decode
    parts: Parts = itself
    stream: str = "events"  # its name in metrics


class Consumer:
    def __init__(self, source: Source, sink: Sink, habits: Habits) -> None:
        self._source = source
        self._sink = sink
        self._habits = habits
        self._next_claim = 0.0
        self._away: dict[str, str] = {}

    @property
    def away(self) -> Mapping[str, str]:
        """What did not answer at the last try, and what it said."""
        return self._away

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then finish what has been read. While a batch is being
        stored the next one is read and decoded, never more than that."""
        async with asyncio.TaskGroup() as group:
            settling: asyncio.Task[None] | None = None
            while not stop.is_set():
                batch = await self._gather(stop, partial(_running, settling))
                if settling:
                    await settling
                settling = group.create_task(self._settle(batch, stop))
        await self._once("redis", self._source.leave, self._habits.name)

    async def _gather(self, stop: asyncio.Event, busy: Callable[[], bool]) -> Batch:
        """Entries up to a batch that is due, fewer when `stop` is set."""
        rule, clock = self._habits.rule, asyncio.get_running_loop().time
        batch = Batch(self._habits.decode, self._habits.parts)
        began = clock()
        while not stop.is_set() and not rule.due(batch.size, clock() - began):
            room = rule.room(batch.size)
            patience_s = rule.patience_s(batch.size, clock() - began)
            # What we hold ourselves is not left behind, however long it takes.
            take = self._read if busy() else self._take
            took = await self._persist(stop, "redis", take, room, patience_s)
            if not batch.entries:
                began = clock()
            batch.add(took or (), room)
        return batch

    async def _take(self, room: int, patience_s: float) -> list[Entry]:
        """What dead consumers left comes first; it is older."""
        name, claim_s = self._habits.name, self._habits.claim_s
        now = asyncio.get_running_loop().time()
        if now >= self._next_claim:
            left = await self._source.claim(name, room, int(claim_s * 1000))
            if left:
                return left
            self._next_claim = now + claim_s
        return await self._read(room, patience_s)

    async def _read(self, room: int, patience_s: float) -> list[Entry]:
        name, block_ms = self._habits.name, int(patience_s * 1000)
        entries = await self._source.read(name, room, block_ms)
        if not entries:
            metrics.BACKLOG.labels(self._habits.stream).set(await self._source.depth())
        return entries

    async def _settle(self, batch: Batch, stop: asyncio.Event) -> None:
        """Store, then acknowledge. Given up at `stop`: then the entries stay
        pending, and whoever claims them stores them."""
        if not batch.entries:
            return
        dead = await self._persist(stop, "store", self._store, batch)
        if dead is None:
            return
        ids = [entry.id for entry in batch.entries]
        letters = [_as_fields(letter) for letter in dead]
        left = await self._persist(
            stop, "redis", self._source.acknowledge, ids, letters
        )
        metrics.BACKLOG.labels(self._habits.stream).set(left or 0)

    async def _store(self, batch: Batch) -> list[DeadLetter]:
        """Everything in SQL, poison as dead letters; those are returned."""
        dead = list(batch.dead)
        with metrics.WRITE_SECONDS.time():
            for event, reason in await self._write(batch.events):
                fields = batch.fields_of(event)
                dead.append(dead_letter(event.entry_id, fields, reason))
            if dead:
                await self._sink.write_dead_letters(dead)
        _note(batch, dead)
        return dead

    async def _write(
        self, events: Sequence[StreamedEvent]
    ) -> list[tuple[StreamedEvent, str]]:
        """Store all that can be stored; returns what the database refuses, found
        by halving the batch."""
        if not events:
            return []
        try:
            await self._sink.write(events)
        except Unstorable as error:
            if len(events) == 1:
                return [(events[0], str(error))]
            half = len(events) // 2
            return [
                *await self._write(events[:half]),
                *await self._write(events[half:]),
            ]
        return []

    async def _persist(
        self,
        stop: asyncio.Event,
        what: str,
        call: Callable[..., Awaitable[T]],
        *args: object,
    ) -> T | None:
        """Try until it works, with growing pauses; None when `stop` ended it."""
        failures = 0
        while True:
            result = await self._once(what, call, *args)
            if result is not None:
                return result
            pause_s = self._habits.backoff.pause_s(failures, random.random())  # noqa: S311 - jitter
            if await wait_for_stop(stop, pause_s):
                return None
            failures += 1

    async def _once(
        self, what: str, call: Callable[..., Awaitable[T]], *args: object
    ) -> T | None:
        """One try; None when `what` is away."""
        try:
            result = await call(*args)
        except (RedisAway, StoreAway) as error:
            self._lost(what, error)
            return None
        if self._away.pop(what, None):
            log.info("is back", action=f"{what}_back")
        return result

    def _lost(self, what: str, error: RedisAway | StoreAway) -> None:
        metrics.FAILURES.labels(what).inc()
        if what not in self._away:
            log.warning("is away", action=f"{what}_away", error=str(error))
        self._away[what] = str(error)


def _as_fields(letter: DeadLetter) -> dict[str, str]:
    return {k: str(v) for k, v in asdict(letter).items() if v is not None}


def _running(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()


def _note(batch: Batch, dead: Sequence[DeadLetter]) -> None:
    refused = {(letter.entry_id, letter.event_id) for letter in dead}
    stored = Counter(e.kind for e in batch.events if (e.entry_id, e.id) not in refused)
    for kind, count in stored.items():
        metrics.EVENTS.labels(kind).inc(count)
    metrics.BATCHES.inc()
    metrics.DEAD_LETTERS.inc(len(dead))
    oldest_ms = min(int(entry.id.partition("-")[0]) for entry in batch.entries)
    metrics.LAG.set(max(0.0, time.time() - oldest_ms / 1000))
    for letter in dead:
        log.warning(
            "an entry could not be stored",
            action="dead_letter",
            entry_id=letter.entry_id,
            kind=letter.kind,
            reason=letter.reason,
        )
