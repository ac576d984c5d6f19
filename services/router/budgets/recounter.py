"""Sums the windows of budgets anew, after Redis was emptied or when events were sent
again: what SQL has, and what only the telemetry stream has.

A request is in the stream until its row is in SQL. Redis notes each request of the
window that is published meanwhile, and this adds those that the stream had before. The
sum in SQL leaves out all that are noted. One that was noted after SQL was asked may be
in that sum only if it is stored by now: then everything is asked again."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Protocol

import msgspec
import structlog
from prometheus_client import Counter

from libs.common.redis.leader import Leadership
from libs.common.redis.telemetry_stream import Entry
from libs.common.routing.budgets import Noted, Recount, Sum
from services.router.rounds import Rounds

log = structlog.get_logger()

EVERY_S = 0.25
TRIES = 20
NOTED_AT_ONCE = 1000
# After Redis was emptied gateways send again, on their next heartbeats, the events that
# SQL may lack (a second of them), and restore reservations. A sum before that is short.
# How many heartbeats that takes, each with the time to connect again:
RESENT_WITHIN = 1.5
RESTORED_WITHIN = 3.0
SHORTEST_HEARTBEAT_S = 1.0
FAILURES = Counter(
    "proxy_router_recount_failures_total",
    "Rounds that could not sum what budgets were spent on.",
)
RECOUNTS = Counter(
    "proxy_router_recounts_total", "Windows of budgets that were summed anew."
)

Used = tuple[str, int, int]  # request id, tokens, billionths of a dollar


class Functions(Protocol):
    """The part of the routing functions used here."""

    async def recounts(self) -> tuple[int, list[Recount]]: ...

    async def note_events(
        self, recount: Recount, used: Iterable[Used] = (), tell: bool = True
    ) -> Noted | None: ...

    async def recounted(self, recount: Recount, noted: Noted, used: Sum) -> bool: ...


class Shards(Protocol):
    """What other shards spent. Raises `RedisAway`, `StoreAway`."""

    @property
    def due(self) -> bool:
        """Is there anything to add?"""

    async def add(self) -> None:
        """Adds it to what is counted here."""


class Rows(Protocol):
    """What SQL has. Raises `StoreAway`."""

    async def spent(
        self, subject: str, start_ms: int, end_ms: int, without: Iterable[str]
    ) -> Sum: ...

    async def stored(
        self, ids: Collection[str], start_ms: int, end_ms: int
    ) -> set[str]: ...


class Stream(Protocol):
    """The telemetry stream. Raises `RedisAway`."""

    def entries(self) -> AsyncIterator[Sequence[Entry]]: ...


class _Request(msgspec.Struct):
    """Of a request event, what is counted."""

    created_at_ms: int
    proxy_key_id: str | None = None
    team_id: str | None = None
    total_tokens: int | None = None
    cost_nanos: int | None = None


class Recounter:
    """One router at a time."""

    def __init__(
        self,
        routing: Functions,
        rows: Rows,
        stream: Stream,
        leadership: Leadership,
        shards: Shards,
        heartbeat_s: float,
    ) -> None:
        """`heartbeat_s`: between two of a gateway."""
        self._routing = routing
        self._shards = shards
        self._rows = rows
        self._stream = stream
        self._leadership = leadership
        self._heartbeat_ms = max(heartbeat_s, SHORTEST_HEARTBEAT_S) * 1000
        self._rounds = Rounds(
            FAILURES, "cannot sum budgets", "recount_failed", log.warning
        )

    async def run(self) -> None:
        """Runs forever. A failed round is retried by the next one."""
        while True:
            await self._rounds.attempt(self.look)
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Sums all windows that are in doubt. Raises `RedisAway`, `StoreAway`."""
        # One after the other, so that no row of the log counts twice or is missed.
        if self._shards.due and await self._leadership.hold():
            await self._shards.add()
        age_ms, wanted = await self._routing.recounts()
        due = [r for r in wanted if age_ms > _waits(r) * self._heartbeat_ms]
        if not due or not await self._leadership.hold():
            return
        # After Redis began to note what is published.
        streamed = await self._streamed()
        for recount in due:
            used = [
                each
                for at_ms, each in streamed[recount.subject]
                if recount.start_ms <= at_ms < recount.end_ms
            ]
            await self._sum(recount, used)

    async def _sum(self, recount: Recount, used: Sequence[Used]) -> None:
        parts = range(0, max(len(used), 1), NOTED_AT_ONCE)
        noted: Noted | None = None
        for start in parts:
            part = used[start : start + NOTED_AT_ONCE]
            # Only the last reply is read: to list all that are noted takes Redis long.
            last = start == parts[-1]
            noted = await self._routing.note_events(recount, part, last)
        subject, window = recount.subject, (recount.start_ms, recount.end_ms)
        for _ in range(TRIES):
            if noted is None:
                return
            used_before = await self._rows.spent(subject, *window, noted.ids)
            after = await self._routing.note_events(recount)
            if after is None:
                return
            if not await self._rows.stored(after.ids - noted.ids, *window):
                if await self._routing.recounted(recount, after, used_before):
                    RECOUNTS.inc()
                    log.info("summed a budget", action="recounted", subject=subject)
                return
            noted = after

    async def _streamed(self) -> dict[str, list[tuple[int, Used]]]:
        """The requests in the stream, with their times, by subject."""
        found: dict[str, list[tuple[int, Used]]] = defaultdict(list)
        async for entries in self._stream.entries():
            for entry in entries:
                if entry.fields.get(b"kind") == b"request":
                    _add(found, entry)
        return found


def _waits(recount: Recount) -> float:
    """For how many heartbeats after Redis began the window is not summed yet."""
    return RESTORED_WITHIN if recount.reserves else RESENT_WITHIN


def _add(found: dict[str, list[tuple[int, Used]]], entry: Entry) -> None:
    try:
        request = msgspec.json.decode(entry.fields[b"data"], type=_Request)
        id_ = entry.fields[b"id"].decode()
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError):
        return  # a dead letter
    tokens, nanos = max(request.total_tokens or 0, 0), max(request.cost_nanos or 0, 0)
    if not tokens and not nanos:
        return
    used = request.created_at_ms, (id_, tokens, nanos)
    if request.proxy_key_id:
        found[f"key:{request.proxy_key_id}"].append(used)
    if request.team_id:
        found[f"team:{request.team_id}"].append(used)
