"""Journals whose gateway is dead: what it had to tell is told by us.

A successor takes the events into its own journal, which keeps them until they are in
SQL, and ends what the dead gateway had under way: `interrupted`, under the request's
own id. The router's reaper tells the same of its leases, and whoever comes second
changes nothing; nor does either change a real outcome."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from libs.common.errors import NoCatalogue, RedisAway
from services.gateway.ledger.journal.delivery import Report
from services.gateway.ledger.journal.folder import (
    left_behind,
    locked_if_orphaned,
    remove,
)
from services.gateway.ledger.journal.journal import COUNTERS, EVENT_KINDS, Journal
from services.gateway.ledger.journal.segments import (
    Kind,
    Record,
    Segment,
    read_segments,
)

log = structlog.get_logger()

LOOK_EVERY_S = 3.0
AT_ONCE = 500  # records taken over before others get their turn
CROWDED_S = 0.5
GATEWAY_LOST = (
    b'"outcome":"interrupted","error_code":"gateway_lost",'
    b'"error_message":"The gateway that served this request stopped answering."}'
)


@dataclass(slots=True)
class CrashedJournal:
    """What a dead gateway left, as its journal tells."""

    gateway_id: str
    started_at_ms: int = 0
    accepted: int = 0
    ended: int = 0
    safe: int = 0  # what is before that position is in SQL
    open: dict[str, bytes] = field(default_factory=dict)  # request -> its lease record
    segments: list[Segment] = field(default_factory=list)
    corrupt: int = 0  # gaps in it: records, or whole segments, that cannot be read

    def note(self, record: Record) -> None:
        """Read on."""
        match record.kind:
            case Kind.CHECK if len(record.data) == COUNTERS.size:
                told = COUNTERS.unpack(record.data)
                self.started_at_ms, self.safe, self.accepted, self.ended = told
            case Kind.ACCEPTED:
                self.accepted += 1
                self.open[record.id] = record.data
            case Kind.CARRIED:
                self.open[record.id] = record.data
            case Kind.REQUEST:
                self.ended += 1
                if self.open.pop(record.id, None) is None:
                    self.accepted += 1
            case _:
                pass

    def events(self) -> Iterator[Record]:
        """Those that may not be in SQL."""
        for record in _records(self.segments):
            if record.kind in EVENT_KINDS and record.position >= self.safe:
                yield record

    def interrupted(self, now_ms: int) -> Iterator[tuple[str, bytes]]:
        """An event for each request that was under way."""
        routes = self._routes()
        for request_id, head in self.open.items():
            ended = b'%b%b,"completed_at_ms":%d,%b' % (
                head, routes.get(request_id, b""), now_ms, GATEWAY_LOST,
            )  # fmt: skip
            yield request_id, ended

    def _routes(self) -> dict[str, bytes]:
        """Where the open requests were sent, by their last decisions."""
        routes: dict[str, bytes] = {}
        for record in _records(self.segments):
            if record.kind is Kind.DECISION:
                route = _route(record.data)
                if route and route.request_id in self.open and route.resource_id:
                    routes[route.request_id] = b',"attempts":%d,"resource_id":%b' % (
                        route.attempt, msgspec.json.encode(route.resource_id),
                    )  # fmt: skip
        return routes

    def close(self) -> None:
        for segment in self.segments:
            segment.close()


class _Route(msgspec.Struct):
    request_id: str
    attempt: int
    resource_id: str | None = None


def _route(decision: bytes) -> _Route | None:
    try:
        return msgspec.json.decode(decision, type=_Route)
    except msgspec.MsgspecError:
        return None


def _records(segments: Iterable[Segment]) -> Iterator[Record]:
    for segment in segments:
        yield from segment.records()


def read_crashed_journal(folder: Path) -> CrashedJournal:
    """Raises `OSError`."""
    segments, corrupt = read_segments(folder)
    estate = CrashedJournal(folder.name, segments=segments, corrupt=corrupt)
    for record in _records(segments):
        estate.note(record)
    # A segment that was begun holds the counters at least.
    estate.corrupt += sum(
        segment.corrupt or not any(True for _ in segment.records())
        for segment in segments
    )
    return estate


class Leases(Protocol):
    """Those in Redis."""

    async def abandon(self, gateway_id: str, request_ids: list[str]) -> int: ...


class JournalRecovery:
    """Looks for the journals of dead gateways, at its start and from then on."""

    def __init__(
        self, root: Path, journal: Journal, leases: Leases | None = None
    ) -> None:
        self._root = root
        self._journal = journal
        self._leases = leases
        self._unreadable: set[Path] = set()

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> int:
        """Once; returns how many estates were taken over."""
        taken = 0
        own = self._journal.folder.path
        for folder in await asyncio.to_thread(left_behind, self._root, own):
            try:
                taken += await self._try(folder)
            except OSError as error:
                if folder not in self._unreadable:
                    self._unreadable.add(folder)
                    log.exception(
                        "a journal cannot be read",
                        action="journal_unreadable",
                        folder=str(folder),
                        cause=error.strerror,
                    )
        return taken

    async def _try(self, folder: Path) -> bool:
        with locked_if_orphaned(folder) as ours:
            if not ours:
                return False
            estate = await asyncio.to_thread(read_crashed_journal, folder)
            try:
                await self._take_over(estate)
            finally:
                estate.close()
            # All of it is in our own journal: should we die now, it is told twice.
            await asyncio.to_thread(remove, folder)
        return True

    async def _take_over(self, estate: CrashedJournal) -> None:
        events = 0
        told = estate.events()
        while part := list(islice(told, AT_ONCE)):
            while self._journal.crowded:  # noqa: ASYNC110 - nobody tells of room
                await asyncio.sleep(CROWDED_S)
            for record in part:
                self._journal.adopt(record.kind, record.id, record.data)
            events += len(part)
            await asyncio.sleep(0)
        now_ms = int(time.time() * 1000)
        for request_id, event in estate.interrupted(now_ms):
            self._journal.adopt(Kind.REQUEST, request_id, event)
        await self._lay_down(estate)
        last_word = self._last_word(estate, now_ms)
        closed = f"{estate.gateway_id}:closed"
        self._journal.adopt(Kind.GATEWAY, closed, last_word)
        if estate.corrupt:
            self._journal.corrupt += estate.corrupt
            log.error(
                "journal records are corrupt and were skipped",
                action="journal_corrupt",
                gateway=estate.gateway_id,
                gaps=estate.corrupt,
            )
        log.warning(
            "took over from a dead gateway",
            action="journal_taken_over",
            gateway=estate.gateway_id,
            events=events,
            interrupted=len(estate.open),
        )

    async def _lay_down(self, estate: CrashedJournal) -> None:
        """Its leases. The reaper would, once it has been silent for long enough: that
        its journal is left is proof already."""
        if self._leases is not None and estate.open:
            with suppress(RedisAway, NoCatalogue):
                await self._leases.abandon(estate.gateway_id, list(estate.open))

    def _last_word(self, estate: CrashedJournal, now_ms: int) -> bytes:
        """All its requests have ended now."""
        return msgspec.json.encode(
            Report(
                created_at_ms=now_ms,
                gateway_id=estate.gateway_id,
                started_at_ms=estate.started_at_ms,
                accepted=estate.accepted,
                ended=estate.accepted,
                held=0,
                state="closed",
            )
        )
