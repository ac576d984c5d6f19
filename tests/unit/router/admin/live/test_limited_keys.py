"""What keys with limits used."""

import pytest

from libs.common.budgets import Budget
from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.proxy_keys import Principal
from libs.common.routing.budgets import KNOWN, Spend
from services.router.admin.live.limited_keys import LimitedKeys

OF_TEAM = Budget("team:red", tokens=5, window="total")
LIMITED = Principal("a", requests_per_minute=60, team_id="red", budgets=(OF_TEAM,))
MATE = Principal(
    "b", team_id="red", budgets=(Budget("key:b", tokens=9, window="total"), OF_TEAM)
)


class Redis:
    def __init__(self, *keys: Principal, spent: int = 5) -> None:
        self.keys = keys
        self.spent = spent
        self.asked: list[str] = []

    async def read(self) -> dict[str, Principal]:
        return {key.id: key for key in self.keys}

    async def used(self, *key_ids: str) -> list[tuple[int, int]]:
        self.asked += key_ids
        return [(3, 4) for _ in key_ids]

    async def spend(self, *subjects: str) -> list[Spend | None]:
        self.asked += subjects
        return [
            Spend(subject, 0, END_OF_TIME_MS, self.spent, 0, 0, KNOWN)
            for subject in subjects
        ]


@pytest.mark.asyncio
async def test_limited_keys_and_spent_budgets() -> None:
    redis = Redis(LIMITED, MATE)
    assert await LimitedKeys(redis, redis).used() == ([(LIMITED, 3, 4)], [OF_TEAM])
    assert redis.asked == ["a", "team:red", "key:b"]  # each once


@pytest.mark.asyncio
async def test_a_budget_with_something_left_is_not_told() -> None:
    redis = Redis(MATE, spent=4)
    assert await LimitedKeys(redis, redis).used() == ([], [])


@pytest.mark.asyncio
async def test_without_limits_redis_counts_nothing() -> None:
    redis = Redis(Principal("free"))
    assert await LimitedKeys(redis, redis).used() == ([], [])
    assert redis.asked == []
