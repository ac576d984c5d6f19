"""What shards tell each other, in a file. The same on Postgres, with the log of what
they spend, is in tests/integration/store/test_shards_in_sql.py."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from libs.common.store.interface import COMMAND_LINE
from libs.common.store.proxy_keys import TeamRows
from libs.common.store.sqlite.store import SqliteStore
from services.router.shards.rows import ShardRows, Spending

pytestmark = pytest.mark.asyncio
T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "proxy.sqlite3")
    await made.migrate()
    yield made
    await made.close()


async def test_changes_are_those_after_a_change(store: SqliteStore) -> None:
    rows, teams = ShardRows(store.fetch), TeamRows(store.fetch).by(COMMAND_LINE)
    assert await rows.changes(0) == (0, set())
    for number in (1, 2):
        fields = {"id": f"t{number}", "name": "t", "policy": None}
        await teams.add(fields, T0)
    assert await rows.changes(0) == (2, {"team"})
    assert await rows.changes(1) == (2, {"team"})
    assert await rows.changes(2) == (2, set())


async def test_a_file_has_one_shard(store: SqliteStore) -> None:
    rows = ShardRows(store.fetch)
    assert await rows.note("b", "1", T0) == []
    assert await rows.note("c", "2", T0) == []


async def test_a_file_has_no_spend_of_others(store: SqliteStore) -> None:
    assert await ShardRows(store.fetch).spent_by_others("b", 0) == Spending(0, [])
