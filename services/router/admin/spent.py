"""What was spent of the budgets of keys and teams, for their rows."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, Protocol

from libs.common.budgets import Budget, budget_of, split_terms
from libs.common.contracts.events import Row
from libs.common.contracts.prices import NANOS
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.budgets import Spend, spent_at

Kind = Literal["key", "team"]


class Spends(Protocol):
    """What Redis counts. Raises `RedisAway`, `NoCatalogue`."""

    async def spend(self, *subjects: str) -> list[Spend | None]: ...

    async def summed_spend(
        self, budgets: Sequence[Budget], now_ms: int
    ) -> list[Spend | None]: ...


class Spent:
    def __init__(self, spends: Spends) -> None:
        self._spends = spends

    async def shown(
        self, kind: Kind, rows: Sequence[Row], *, waits: bool = True
    ) -> list[Row]:
        """Rows with `spend`: of the current window; None where there is no budget, or
        while it is not known. `waits`: until the router summed what Redis lacks."""
        budgets = [
            budget_of(f"{kind}:{row['id']}", "", split_terms(row)[1]) for row in rows
        ]
        asked = [budget for budget in budgets if budget is not None]
        now_ms = int(time.time() * 1000)
        known: dict[str, Spend | None] = {}
        if asked:
            subjects = [budget.subject for budget in asked]
            with suppress(RedisAway, NoCatalogue):
                found = await (
                    self._spends.summed_spend(asked, now_ms)
                    if waits
                    else self._spends.spend(*subjects)
                )
                known = dict(zip(subjects, found, strict=True))
        shown = []
        for row, budget in zip(rows, budgets, strict=True):
            spent = None
            if budget is not None:
                spent = spent_at(budget, known.get(budget.subject), now_ms)
            told = None
            if spent is not None:
                told = {"usd": spent[1] / NANOS, "tokens": spent[0]}
            shown.append({**row, "spend": told})
        return shown

    async def of(self, kind: Kind, row: Row) -> Row:
        """The same for one row."""
        return (await self.shown(kind, [row]))[0]

    async def of_changed(self, kind: Kind, row: Row) -> Row:
        """The same for a row that was changed, without waiting: a file may have many
        changes."""
        return (await self.shown(kind, [row], waits=False))[0]
