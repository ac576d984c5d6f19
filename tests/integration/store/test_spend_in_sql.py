"""What budgets were spent on, in both databases."""

from datetime import date

import pytest

from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.store.store import Store
from services.router.budgets.spend import SpendRows
from tests.support.values.telemetry import T0_MS, stored_request

pytestmark = pytest.mark.asyncio


async def test_a_window_is_summed_before_and_after_retention(store: Store) -> None:
    for number in range(4):
        await store.write(
            [
                stored_request(
                    f"r{number}",
                    created_at_ms=T0_MS + number * 1_000,
                    proxy_key_id="k",
                    team_id="t" if number else None,
                    total_tokens=5,
                    cost_nanos=70,
                )
            ]
        )
    rows, window = SpendRows(store.fetch), (T0_MS, T0_MS + 3_000)
    assert await rows.spent("key:k", *window, ["r0"]) == (10, 140, 0)
    assert await rows.spent("team:t", 0, END_OF_TIME_MS, ()) == (15, 210, 0)
    assert await rows.stored(["r0", "r3", "no"], *window) == {"r0"}
    await store.drop_before(date(9000, 1, 1))
    assert await rows.stored(["r0"], *window) == set()
    assert await rows.spent("key:k", 0, END_OF_TIME_MS, ()) == (20, 280, 0)
    assert await rows.spent("team:t", 0, END_OF_TIME_MS, ()) == (15, 210, 0)
    await store.drop_before(date(9000, 1, 1))
    assert await rows.spent("key:k", 0, END_OF_TIME_MS, ()) == (20, 280, 0)
