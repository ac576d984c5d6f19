"""`GET /admin/attention`: what is wrong now, since when, and what to do about it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from libs.common.budgets import Budget
from libs.common.contracts.events import Row
from libs.common.errors import NoCatalogue, RedisAway, StoreAway
from libs.common.redis.shared_connection import Refused
from libs.common.store.rows import iso
from services.router.admin.ledger import PATIENCE_S, Audited
from services.router.admin.live import findings
from services.router.admin.schemas.attention import AttentionItem, AttentionList
from services.router.admin.schemas.state import AdminState
from services.router.api.operation import Operation

EVERY_S = 2.0
LOOKS_BACK = timedelta(days=2)  # for the beginning of a state of health
Subject = tuple[str, str]  # kind, subject
InUse = tuple[list[findings.Used], list[Budget]]
_OF_HEALTH = {"resource_unhealthy": "unhealthy", "resource_cooling": "degraded"}


class Fetch(Protocol):
    async def __call__(self, name: str, values: Mapping[str, Any]) -> list[Row]: ...


class Impaired(Protocol):
    async def __call__(self, gateways: Sequence[str]) -> dict[str, tuple[str, ...]]: ...


class Attention:
    """Looks at most every EVERY_S, however many ask."""

    def __init__(
        self,
        state: Callable[[], Awaitable[AdminState]],
        problems: Callable[[], Awaitable[dict[str, str]]],
        auditor: Audited,
        impaired: Impaired,
        used: Callable[[], Awaitable[InUse]],
        fetch: Fetch,
    ) -> None:
        """`problems`: of parts. `impaired`: parts of gateways, as these say. `used`:
        limited proxy keys, with the requests and tokens of the last minute, and
        budgets that are spent."""
        self._state = state
        self._problems = problems
        self._auditor = auditor
        self._impaired = impaired
        self._used = used
        self._fetch = fetch
        self._looking = asyncio.Lock()
        self._since: dict[Subject, str | None] = {}
        self._items: tuple[AttentionItem, ...] | None = None
        self._looked_at = 0.0

    async def items(self) -> tuple[AttentionItem, ...]:
        """What is wrong, the worst first."""
        clock = asyncio.get_running_loop().time
        async with self._looking:
            if self._items is None or clock() - self._looked_at > EVERY_S:
                self._items = tuple(await self._look())
                self._looked_at = clock()
            return self._items

    async def _look(self) -> list[AttentionItem]:
        state = await self._state()
        impaired, (used, spent) = await self._of_redis()
        found = findings.sorted_items(
            [
                *findings.of_parts(await self._problems()),
                *findings.of_gateways(impaired),
                *findings.of_ledger(state.ledger),
                *findings.of_resources(state.resources),
                *findings.of_accounts(state.resources),
                *findings.of_tenants(used),
                *findings.of_budgets(spent),
            ]
        )
        await self._note([(each.kind, each.subject) for each in found])
        return [
            each.model_copy(update={"since": self._since[each.kind, each.subject]})
            for each in found
        ]

    async def _of_redis(self) -> tuple[dict[str, tuple[str, ...]], InUse]:
        """What gateways say of themselves, and what limited keys used."""
        gateways = tuple(self._auditor.last.reports or ())
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._impaired(gateways), await self._used()
        except (RedisAway, Refused, NoCatalogue, TimeoutError):
            return {}, ([], [])

    async def _note(self, found: Iterable[Subject]) -> None:
        """Remember since when each is wrong, and forget what is over."""
        known, now = self._since, iso(datetime.now(UTC))
        self._since = {each: known.get(each, now) for each in found}
        new = [each for each in self._since if each not in known]
        if any(kind in _OF_HEALTH for kind, _ in new):
            began = await self._health_began()
            for kind, subject in new:
                at = began.get((subject, _OF_HEALTH.get(kind, "")))
                self._since[kind, subject] = at or self._since[kind, subject]

    async def _health_began(self) -> dict[tuple[str, str], str]:
        """When the newest change of each resource to each state of health was."""
        values = {"since": iso(datetime.now(UTC) - LOOKS_BACK)}
        try:
            async with asyncio.timeout(PATIENCE_S):
                rows = await self._fetch("health_changes", values)
        except (StoreAway, TimeoutError):
            return {}
        began: dict[tuple[str, str], str] = {}
        for row in rows:
            event = row["event"]
            if event["model"] is None:
                began.setdefault(
                    (event["resource_id"], event["after"]), row["created_at"]
                )
        return began


class AttentionView:
    def __init__(self, attention: Attention) -> None:
        self._attention = attention

    @Operation(returns=AttentionList)
    async def on_get(self) -> AttentionList:
        """What is wrong now, the worst first."""
        items = await self._attention.items()
        now = datetime.fromtimestamp(time.time(), UTC)
        return AttentionList(data=items, timestamp=iso(now))
