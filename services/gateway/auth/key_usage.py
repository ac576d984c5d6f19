"""What a proxy key used, for `GET /v1/proxy/me`."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from libs.common.budgets import Budget, window_at
from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.contracts.prices import NANOS
from libs.common.proxy_keys import Principal
from libs.common.routing.budgets import Spend, spent_at


class BudgetUse(msgspec.Struct, frozen=True):
    """The budget of a key or of its team, and what was spent of it; null while that is
    not known. A window of `total` has no times. Times are ISO 8601 in UTC."""

    subject: str  # key, team
    window: str  # day, week, month, total
    time_zone: str
    starts_at: str | None
    ends_at: str | None
    budget_usd: float | None
    spent_usd: float | None
    budget_tokens: int | None
    spent_tokens: int | None
    reserved_tokens: int
    soft_percent: int


class KeyUsage(msgspec.Struct, frozen=True):
    """`requests` and `tokens` are those that the limits per minute count now."""

    requests: int = 0
    tokens: int = 0
    budgets: tuple[BudgetUse, ...] = ()


class Counts(Protocol):
    """What Redis counts. Raises `RedisAway`, `NoCatalogue`."""

    async def used(self, *key_ids: str) -> list[tuple[int, int]]: ...

    async def summed_spend(
        self, budgets: Sequence[Budget], now_ms: int
    ) -> list[Spend | None]: ...


async def read_usage(counts: Counts, principal: Principal) -> KeyUsage:
    """Raises `RedisAway`, `NoCatalogue`."""
    if not principal.limited:
        return KeyUsage()
    ((requests, tokens),) = await counts.used(principal.id)
    budgets = principal.budgets
    now_ms = int(time.time() * 1000)
    spends = await counts.summed_spend(budgets, now_ms) if budgets else []
    used = [_use(b, s, now_ms) for b, s in zip(budgets, spends, strict=True)]
    return KeyUsage(requests, tokens, tuple(used))


def _use(budget: Budget, spend: Spend | None, now_ms: int) -> BudgetUse:
    spent = spent_at(budget, spend, now_ms)
    tokens, nanos = (None, None) if spent is None else spent
    window = window_at(budget.window, budget.time_zone, now_ms)
    ends = window.end_ms < END_OF_TIME_MS
    return BudgetUse(
        budget.subject.partition(":")[0],
        budget.window,
        budget.time_zone,
        iso(window.start_ms) if ends else None,
        iso(window.end_ms) if ends else None,
        None if budget.nanos is None else budget.nanos / NANOS,
        None if nanos is None else nanos / NANOS,
        budget.tokens,
        tokens,
        0 if spend is None else spend.reserved,
        budget.soft_percent,
    )


def iso(ms: int) -> str:
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
