"""What was spent, in rows of keys and teams."""

from collections.abc import Sequence
from typing import Any

import pytest

from libs.common.budgets import Budget, shown_terms
from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.budgets import KNOWN, Spend
from services.router.admin.spent import Spent


class Spends:
    """Spend by subject, or why it is not known."""

    def __init__(
        self, error: Exception | None = None, **spent: tuple[int, int]
    ) -> None:
        self.error = error
        self.spent = spent
        self.asked: list[str] = []
        self.waited = 0

    async def spend(self, *subjects: str) -> list[Spend | None]:
        self.asked += subjects
        if self.error:
            raise self.error
        return [self._of(subject) for subject in subjects]

    async def summed_spend(
        self, budgets: Sequence[Budget], now_ms: int
    ) -> list[Spend | None]:
        self.waited += 1
        return await self.spend(*[budget.subject for budget in budgets])

    def _of(self, subject: str) -> Spend | None:
        amounts = self.spent.get(subject.partition(":")[2])
        if amounts is None:
            return None
        return Spend(subject, 0, END_OF_TIME_MS, *amounts, 0, KNOWN)


def row(id_: str, **terms: Any) -> dict[str, Any]:
    return {"id": id_, **shown_terms({"window": "total", **terms})}


@pytest.mark.asyncio
async def test_rows_tell_what_was_spent() -> None:
    spends = Spends(a=(7, 1_500_000_000), b=(1, 1))
    rows = [row("a", usd=2.0), row("b"), row("c", tokens=5)]
    shown = await Spent(spends).shown("team", rows)
    assert [each["spend"] for each in shown] == [{"usd": 1.5, "tokens": 7}, None, None]
    assert spends.asked == ["team:a", "team:c"]  # those with a budget


@pytest.mark.asyncio
async def test_only_reading_waits_for_a_sum() -> None:
    spends = Spends(a=(7, 0))
    changed = await Spent(spends).of_changed("key", row("a", tokens=9))
    assert (changed["spend"], spends.waited) == ({"usd": 0.0, "tokens": 7}, 0)
    assert await Spent(spends).of("key", row("a", tokens=9)) == changed
    assert spends.waited == 1


@pytest.mark.asyncio
async def test_without_budgets_redis_is_not_asked() -> None:
    spends = Spends(AssertionError())
    assert await Spent(spends).shown("key", [row("a")]) == [{**row("a"), "spend": None}]


@pytest.mark.parametrize("error", [RedisAway(), NoCatalogue()])
@pytest.mark.asyncio
async def test_while_redis_is_away_nothing_is_known(error: Exception) -> None:
    (shown,) = await Spent(Spends(error)).shown("key", [row("a", tokens=5)])
    assert shown["spend"] is None
