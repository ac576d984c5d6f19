"""What budgets were spent on, in a file. The same on Postgres is in
tests/integration/store/test_spend_in_sql.py."""

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from libs.common.contracts.events import END_OF_TIME_MS, Outcome
from libs.common.store.sqlite.store import SqliteStore
from services.router.budgets.spend import SpendRows
from tests.support.values.telemetry import T0_MS, stored_request

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "proxy.sqlite3")
    await made.migrate()
    yield made
    await made.close()


async def test_a_window_is_summed_without_some_requests(store: SqliteStore) -> None:
    key: dict[str, Any] = {"proxy_key_id": "k", "team_id": "t"}
    used: dict[str, Any] = {"total_tokens": 5, "cost_nanos": 70}
    await store.write(
        [
            stored_request("r1", **key, **used),
            stored_request("r2", **key, **used),
            stored_request("r3", proxy_key_id="k", total_tokens=2),
            stored_request("odd", **key, total_tokens=-9, cost_nanos=-9),
            stored_request("x", proxy_key_id="x", **used),
            stored_request("later", created_at_ms=T0_MS + 9_000, **key, **used),
        ]
    )
    rows, window = SpendRows(store.fetch), (T0_MS, T0_MS + 9_000)
    assert await rows.spent("key:k", *window, ()) == (12, 140, 0)
    assert await rows.spent("key:k", *window, ["r1", "no"]) == (7, 70, 0)
    assert await rows.spent("team:t", *window, ()) == (10, 140, 0)
    assert await rows.spent("team:t", 0, END_OF_TIME_MS, ()) == (15, 210, 0)
    assert await rows.spent("team:none", *window, ()) == (0, 0, 0)
    assert await rows.stored(["r1", "later", "no"], *window) == {"r1"}
    assert await rows.stored([], *window) == set()


async def test_what_retention_deletes_stays_spent(store: SqliteStore) -> None:
    used: dict[str, Any] = {"total_tokens": 5, "cost_nanos": 70, "team_id": "t"}
    again = {**used, "created_at_ms": T0_MS + 1}
    await store.write(
        [
            stored_request("r1", proxy_key_id="k", **used),
            stored_request("r2", proxy_key_id="k", **again),
            stored_request("r3", proxy_key_id="k", outcome=Outcome.INTERRUPTED),
        ]
    )
    rows = SpendRows(store.fetch)
    await store.drop_before(date(9000, 1, 1))
    for subject in ("key:k", "team:t"):
        assert await rows.spent(subject, 0, END_OF_TIME_MS, ()) == (10, 140, 0)
        assert await rows.spent(subject, 0, T0_MS - 900_000, ()) == (0, 0, 0)
