"""Recovers the journals of crashed gateways.

Copies the events into this gateway's journal, which keeps them until SQL has them, and
ends the requests that were active with an `interrupted` event under their own id. The
router's reaper does the same from the leases. The second event of a request changes
nothing, and neither replaces a real outcome."""

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

from libs.common.contracts.events import GatewayEvent, encode
from libs.common.errors import NoCatalogue, RedisAway
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
from services.gateway.metrics import Counter

log = structlog.get_logger()

RECOVERED = Counter(
    "proxy_recovered_requests_total",
    "Requests of crashed gateways that were recorded as interrupted.",
)

LOOK_EVERY_S = 3.0
AT_ONCE = 500  # records copied before the event loop may run other tasks
CROWDED_S = 0.5
GATEWAY_LOST = (
    b'"outcome":"interrupted","error_code":"gateway_lost",'
    b'"error_message":"The gateway that served this request stopped answering."}'
)


@dataclass(slots=True)
class CrashedJournal:
    """The contents of a crashed gateway's journal."""

    gateway_id: str
    started_at_ms: int = 0
    accepted: int = 0
    ended: int = 0
    safe: int = 0  # SQL has all events before this position
    open: dict[str, bytes] = field(default_factory=dict)  # request id -> event head
    segments: list[Segment] = field(default_factory=list)
    corrupt: int = 0  # gaps: records or whole segments that cannot be read

    def note(self, record: Record) -> None:
        """Applies the next record."""
        match record.kind:
            case Kind.CHECK if len(record.data) == COUNTERS.size:
                counters = COUNTERS.unpack(record.data)
                self.started_at_ms, self.safe, self.accepted, self.ended = counters
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
        """The events that may not be in SQL."""
        for record in _records(self.segments):
            if record.kind in EVENT_KINDS and record.position >= self.safe:
                yield record

    def interrupted(self, now_ms: int) -> Iterator[tuple[str, bytes]]:
        """An `interrupted` event for each request that was active."""
        routes = self._routes()
        for request_id, head in self.open.items():
            ended = b'%b%b,"completed_at_ms":%d,%b' % (
                head, routes.get(request_id, b""), now_ms, GATEWAY_LOST,
            )  # fmt: skip
            yield request_id, ended

    def _routes(self) -> dict[str, bytes]:
        """The last routing decision of each open request, as JSON members."""
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
    """Reads a crashed gateway's journal. Raises `OSError`."""
    segments, corrupt = read_segments(folder)
    crashed = CrashedJournal(folder.name, segments=segments, corrupt=corrupt)
    for record in _records(segments):
        crashed.note(record)
    # Each started segment holds at least the counters.
    crashed.corrupt += sum(
        segment.corrupt or not any(True for _ in segment.records())
        for segment in segments
    )
    return crashed


class Leases(Protocol):
    """The leases in Redis."""

    async def abandon(self, gateway_id: str, request_ids: list[str]) -> int: ...


class JournalRecovery:
    """Looks for journals of crashed gateways every few seconds and recovers them."""

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
        """Looks once. Returns the number of journals recovered."""
        taken = 0
        own = self._journal.folder.path
        for folder in await asyncio.to_thread(left_behind, self._root, own):
            try:
                taken += await self._try(folder)
            except OSError as error:
                if folder not in self._unreadable:
                    self._unreadable.add(folder)
                    log.exception(
                        "journal of another gateway cannot be read",
                        action="journal_unreadable",
                        folder=str(folder),
                        cause=error.strerror,
                    )
        return taken

    async def _try(self, folder: Path) -> bool:
        with locked_if_orphaned(folder) as ours:
            if not ours:
                return False
            crashed = await asyncio.to_thread(read_crashed_journal, folder)
            try:
                await self._adopt(crashed)
            finally:
                crashed.close()
            # If this process crashes now, the events are sent twice, which is harmless.
            await asyncio.to_thread(remove, folder)
        return True

    async def _adopt(self, crashed: CrashedJournal) -> None:
        copied = 0
        left = crashed.events()
        while part := list(islice(left, AT_ONCE)):
            while self._journal.crowded:  # noqa: ASYNC110 - no event signals room
                await asyncio.sleep(CROWDED_S)
            for record in part:
                self._journal.adopt(record.kind, record.id, record.data)
            copied += len(part)
            await asyncio.sleep(0)
        now_ms = int(time.time() * 1000)
        for request_id, event in crashed.interrupted(now_ms):
            self._journal.adopt(Kind.REQUEST, request_id, event)
        RECOVERED.inc(by=len(crashed.open))
        await self._end_leases(crashed)
        closing = self._closing_report(crashed, now_ms)
        closed = f"{crashed.gateway_id}:closed"
        self._journal.adopt(Kind.GATEWAY, closed, closing)
        if crashed.corrupt:
            self._journal.corrupt += crashed.corrupt
            log.error(
                "corrupt records in the journal of a crashed gateway were skipped",
                action="journal_corrupt",
                gateway=crashed.gateway_id,
                gaps=crashed.corrupt,
            )
        log.warning(
            "journal of a crashed gateway was recovered",
            action="journal_taken_over",
            gateway=crashed.gateway_id,
            events=copied,
            interrupted=len(crashed.open),
        )

    async def _end_leases(self, crashed: CrashedJournal) -> None:
        """Ends the leases of the crashed gateway. The reaper would do so only after
        PROXY_GATEWAY_SILENCE_SECONDS; the unlocked journal proves the crash now."""
        if self._leases is not None and crashed.open:
            with suppress(RedisAway, NoCatalogue):
                await self._leases.abandon(crashed.gateway_id, list(crashed.open))

    def _closing_report(self, crashed: CrashedJournal, now_ms: int) -> bytes:
        """Its last gateway event: all its requests have ended."""
        return encode(
            GatewayEvent(
                created_at_ms=now_ms,
                gateway_id=crashed.gateway_id,
                started_at_ms=crashed.started_at_ms,
                accepted=crashed.accepted,
                ended=crashed.accepted,
                held=0,
                state="closed",
            )
        )
