"""What keys with limits used, for `GET /admin/attention`."""

import time
from typing import Protocol

from libs.common.budgets import Budget
from libs.common.proxy_keys import Principal
from libs.common.routing.budgets import Spend, exhausted, spent_at
from services.router.admin.live.findings import Used


class Table(Protocol):
    """The proxy keys in Redis. Raises `RedisAway`."""

    async def read(self) -> dict[str, Principal]: ...


class Counts(Protocol):
    """What Redis counts. Raises `RedisAway`, `NoCatalogue`."""

    async def used(self, *key_ids: str) -> list[tuple[int, int]]: ...

    async def spend(self, *subjects: str) -> list[Spend | None]: ...


class LimitedKeys:
    def __init__(self, table: Table, counts: Counts) -> None:
        self._table = table
        self._counts = counts

    async def used(self) -> tuple[list[Used], list[Budget]]:
        """Keys with limits per minute and what these count now; and the budgets of keys
        and teams that are spent."""
        keys = (await self._table.read()).values()
        limited = [k for k in keys if k.requests_per_minute or k.tokens_per_minute]
        used: list[Used] = []
        if limited:
            counts = await self._counts.used(*[key.id for key in limited])
            used = [(k, *n) for k, n in zip(limited, counts, strict=True)]
        # Keys of a team have the same one.
        budgets = {b.subject: b for key in keys for b in key.budgets}
        spends = await self._counts.spend(*budgets) if budgets else []
        now_ms = int(time.time() * 1000)
        spent = []
        for budget, spend in zip(budgets.values(), spends, strict=True):
            amounts = spent_at(budget, spend, now_ms)
            if amounts is not None and exhausted(budget, *amounts):
                spent.append(budget)
        return used, spent
