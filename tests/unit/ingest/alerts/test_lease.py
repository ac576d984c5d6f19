"""One process sends alerts at a time, in a file. The same on Postgres is in
tests/integration/store/test_shards_in_sql.py."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.common.store.sqlite.store import SqliteStore
from services.ingest.alerts.lease import LASTS, DeliveryLease

pytestmark = pytest.mark.asyncio


async def test_it_has_one_holder_until_it_is_released_or_expires(
    tmp_path: Path,
) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    async with SqliteStore(tmp_path / "proxy.sqlite3") as store:
        await store.migrate()
        one, other = (
            DeliveryLease(store.fetch, name, lambda: now) for name in ("a", "b")
        )
        assert await one.hold()
        assert not await other.hold()
        now += LASTS
        assert await one.hold()  # renewed
        now += timedelta(seconds=1)
        assert not await other.hold()
        await other.release()  # of another holder
        assert not await other.hold()
        await one.release()
        assert await other.hold()
        now += LASTS + timedelta(seconds=1)
        assert await one.hold()
