"""What a key used."""

import time

import pytest

from libs.common.budgets import Budget, window_at
from libs.common.proxy_keys import Principal
from libs.common.routing.budgets import KNOWN, UNKNOWN, Spend
from services.gateway.auth.key_usage import KeyUsage, iso, read_usage
from tests.support.memory.twin import Twin, resource

NOW_MS = 1_790_000_000_000
DAY = window_at("day", "UTC", NOW_MS)
BUDGET = Budget("key:k", nanos=2_000_000_000, tokens=50, window="day")
KEY = Principal("k", requests_per_minute=60, budgets=(BUDGET,))


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW_MS / 1000)


@pytest.mark.parametrize(
    ("spend", "usd", "tokens"),
    [
        pytest.param(Spend("key:k", *DAY, 7, 10**9, 3, KNOWN), 1.0, 7, id="now"),
        pytest.param(
            Spend("key:k", DAY.start_ms - 1, DAY.start_ms, 7, 1, 3, KNOWN), 0.0, 0,
            id="of a window before",
        ),
        pytest.param(
            Spend("key:k", *DAY, 7, 1, 3, UNKNOWN), None, None, id="not summed yet"
        ),
        pytest.param(
            Spend("key:k", 0, DAY.end_ms + 1, 7, 1, 3, KNOWN), None, None,
            id="of another kind",
        ),
        pytest.param(None, None, None, id="not counted yet"),
    ],
)  # fmt: skip
@pytest.mark.asyncio
async def test_budgets(
    spend: Spend | None, usd: float | None, tokens: int | None
) -> None:
    twin = Twin(resource("a"))
    twin.counted = 3, 40
    if spend is not None:
        twin.spends[spend.subject] = spend
    usage = await read_usage(twin, KEY)
    assert (usage.requests, usage.tokens) == (3, 40)
    (told,) = usage.budgets
    assert (told.spent_usd, told.spent_tokens) == (usd, tokens)
    assert (told.subject, told.window, told.budget_usd) == ("key", "day", 2.0)
    assert (told.starts_at, told.ends_at) == (iso(DAY.start_ms), iso(DAY.end_ms))


@pytest.mark.asyncio
async def test_without_limits_redis_is_not_asked() -> None:
    twin = Twin(resource("a"))
    twin.away = True
    assert await read_usage(twin, Principal("k")) == KeyUsage()
