"""`GET /admin/ledger`: all accepted requests by where their records are, and whether
the gateways' counts and SQL agree."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import time
from typing import Protocol

from libs.common.errors import NoCatalogue, RedisAway, StoreAway
from libs.common.redis.keys import DEFAULT_NAMESPACE
from libs.common.routing.types import Reported
from libs.common.store.interface import Book
from libs.common.store.rows import iso_ms
from services.router.admin.audit import Account, Finding, accounts, doubled, judge
from services.router.admin.schemas.state import GatewayBooks, Ledger, WholeLedger
from services.router.api.operation import Operation

PATIENCE_S = 2.0  # timeout of each read, from Redis or SQL


class Reports(Protocol):
    async def reports(self) -> dict[str, Reported]: ...

    async def in_flight(self) -> int: ...


class Backlog(Protocol):
    async def depth(self) -> int: ...


class Books(Protocol):
    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """The state at one time; None for what could not be read."""

    reports: Mapping[str, Reported] | None = None
    books: tuple[Book, ...] | None = None
    leases: int | None = None
    depth: int | None = None
    accounts: tuple[Account, ...] = ()
    finding: Finding | None = None


class Audited(Protocol):
    """The newest reading of the ledger."""

    @property
    def last(self) -> Reading: ...


class Auditor:
    """Takes one reading at a time and keeps the last two."""

    def __init__(
        self,
        routing: Reports,
        backlog: Backlog,
        store: Books,
        silent_ms: int,
        shard: str = DEFAULT_NAMESPACE,
    ) -> None:
        """`silent_ms`: a gateway that did not report for this long is silent.
        `shard`: whose Redis this is."""
        self._routing = routing
        self._backlog = backlog
        self._store = store
        self.silent_ms = silent_ms
        self.shard = shard
        self._reading = asyncio.Lock()
        self._last = Reading()
        self._before = Reading()

    @property
    def last(self) -> Reading:
        """The newest reading."""
        return self._last

    async def read(self) -> Reading:
        """The current state."""
        async with self._reading:
            # Redis before SQL: SQL must then have all that gateways know as stored.
            found = await self._ask_redis()
            books = await self._ask_sql(tuple(found.reports or ()))
            found = replace(found, books=books)
            found = self._judged(found)
            self._before, self._last = self._last, found
            return found

    def _judged(self, found: Reading) -> Reading:
        books, reports = found.books or (), found.reports or {}
        listed = accounts(reports, books, self.silent_ms, self.shard)
        if found.books is None or found.reports is None or found.depth is None:
            return replace(found, accounts=listed)
        now_ms = int(time() * 1000)
        finding = judge(listed, reports, found.depth, now_ms, self.shard)
        more = doubled(self._before.accounts, self._last.reports or {}, reports)
        finding = replace(finding, problems=finding.problems + more)
        return replace(found, accounts=listed, finding=finding)

    async def _ask_redis(self) -> Reading:
        try:
            async with asyncio.timeout(PATIENCE_S):
                # The depth first: events stored between the two reads are in SQL.
                depth = await self._backlog.depth()
                reports = await self._routing.reports()
                return Reading(reports, None, await self._routing.in_flight(), depth)
        except (RedisAway, NoCatalogue, TimeoutError):
            return Reading()

    async def _ask_sql(self, ids: Sequence[str]) -> tuple[Book, ...] | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._store.books(ids)
        except (StoreAway, TimeoutError):
            return None


def summed(reading: Reading) -> Ledger:
    """The totals. A lease may be newer than any report."""
    listed, finding = reading.accounts, reading.finding
    redis, sql = reading.reports is not None, reading.books is not None
    stored = sum(a.stored for a in listed)
    dead = sum(a.dead_lettered for a in listed)
    pending = sum(a.pending for a in listed)
    in_flight = max(reading.leases or 0, sum(a.in_flight for a in listed))
    both = redis and sql
    return Ledger(
        accepted=stored + dead + pending + in_flight if both else None,
        stored=stored if sql else None,
        pending=pending if both else None,
        in_flight=in_flight if redis else None,
        dead_lettered=dead if sql else None,
        balanced=None if finding is None else not finding.problems,
        problems=finding.problems if finding else (),
        unverified=finding.unverified if finding else (),
    )


def shown(account: Account) -> GatewayBooks:
    counts = asdict(account)
    seen_ms = counts.pop("seen_ms")
    return GatewayBooks(**counts, seen_at=None if seen_ms is None else iso_ms(seen_ms))


class LedgerView:
    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    @Operation(returns=WholeLedger)
    async def on_get(self) -> WholeLedger:
        """All accepted requests by where their records are, and whether the counts
        agree."""
        reading = await self._auditor.read()
        listed = sorted(reading.accounts, key=lambda a: (a.state, a.id))
        return WholeLedger(
            **summed(reading).model_dump(),
            queue_depth=reading.depth,
            gateways=tuple(map(shown, listed)),
            timestamp=iso_ms(int(time() * 1000)),
        )
