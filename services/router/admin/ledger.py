"""`GET /admin/ledger`: every request that was accepted, by where its record is, and
whether the books agree."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import time
from typing import Protocol

from falcon.asgi import Request, Response

from libs.common.errors import NoCatalogue, RedisAway, StoreAway
from libs.common.routing.types import Reported
from libs.common.store.interface import Book
from services.router.admin.audit import Account, Finding, accounts, doubled, judge
from services.router.admin.shapes import GatewayBooks, Ledger, WholeLedger

PATIENCE_S = 2.0  # with a database or a Redis that hangs


class Reports(Protocol):
    async def reports(self) -> dict[str, Reported]: ...

    async def in_flight(self) -> int: ...


class Backlog(Protocol):
    async def depth(self) -> int: ...


class Books(Protocol):
    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found at one time; None for what could not be asked."""

    reports: Mapping[str, Reported] | None = None
    books: tuple[Book, ...] | None = None
    leases: int | None = None
    depth: int | None = None
    accounts: tuple[Account, ...] = ()
    finding: Finding | None = None


class Auditor:
    """Reads the books, one reading after the other, and remembers the last two."""

    def __init__(self, routing: Reports, backlog: Backlog, store: Books) -> None:
        self._routing = routing
        self._backlog = backlog
        self._store = store
        self._reading = asyncio.Lock()
        self._last = Reading()
        self._before = Reading()

    async def read(self) -> Reading:
        """As of now."""
        async with self._reading:
            # In this order: what was known to be stored must be there then.
            found = await self._ask_redis()
            books = await self._ask_sql(tuple(found.reports or ()))
            found = replace(found, books=books)
            found = self._judged(found)
            self._before, self._last = self._last, found
            return found

    def _judged(self, found: Reading) -> Reading:
        books, reports = found.books or (), found.reports or {}
        listed = accounts(reports, books)
        if found.books is None or found.reports is None or found.depth is None:
            return replace(found, accounts=listed)
        finding = judge(listed, reports, found.depth, int(time() * 1000))
        more = doubled(self._before.accounts, self._last.reports or {}, reports)
        finding = replace(finding, problems=finding.problems + more)
        return replace(found, accounts=listed, finding=finding)

    async def _ask_redis(self) -> Reading:
        try:
            async with asyncio.timeout(PATIENCE_S):
                # The depth first: what is stored between the two is in SQL.
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
    """The sums. A lease may be younger than any report."""
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
    return GatewayBooks(
        id=account.id,
        state=account.state,
        accepted=account.accepted,
        stored=account.stored,
        pending=account.pending,
        in_flight=account.in_flight,
        dead_lettered=account.dead_lettered,
        held=account.held,
        seen_at=None if account.seen_ms is None else _iso(account.seen_ms),
    )


def _iso(ms: int) -> str:
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LedgerView:
    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    async def on_get(self, _: Request, resp: Response) -> None:
        reading = await self._auditor.read()
        listed = sorted(reading.accounts, key=lambda a: (a.state, a.id))
        whole = WholeLedger(
            **summed(reading).model_dump(),
            queue_depth=reading.depth,
            gateways=tuple(map(shown, listed)),
            timestamp=_iso(int(time() * 1000)),
        )
        resp.content_type = "application/json"
        resp.data = whole.model_dump_json().encode()
        resp.cache_control = ["no-store"]
