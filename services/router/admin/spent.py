"""What was spent of the budgets of keys and teams, for their rows."""

import time
from collections.abc import Sequence
from typing import Literal, Protocol

from libs.common.budgets import budget_of, split_terms
from libs.common.contracts.events import Row
from libs.common.contracts.prices import NANOS
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.budgets import Spend, spent_at


class Spends(Protocol):
    """What Redis counts. Raises `RedisAway`, `NoCatalogue`."""

    async def spend(self, *subjects: str) -> list[Spend | None]: ...


class Spent:
    def __init__(self, spends: Spends) -> None:
        self._spends = spends

    async def shown(
        self, kind: Literal["key", "team"], rows: Sequence[Row]
    ) -> list[Row]:
        """Rows with `spend`: of the current window; None where there is no budget or
        Redis does not know."""
        budgets = [
            budget_of(f"{kind}:{row['id']}", "", split_terms(row)[1]) for row in rows
        ]
        asked = [budget.subject for budget in budgets if budget is not None]
        known: dict[str, Spend | None] = {}
        if asked:
            try:
                found = await self._spends.spend(*asked)
                known = dict(zip(asked, found, strict=True))
            except (RedisAway, NoCatalogue):
                pass
        now_ms = int(time.time() * 1000)
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

    async def of(self, kind: Literal["key", "team"], row: Row) -> Row:
        """The same for one row."""
        return (await self.shown(kind, [row]))[0]
