"""Migrations of SQLite."""

import asyncio
from pathlib import Path

import pytest

from libs.common.errors import StoreAway
from libs.common.store.interface import (
    SchemaTooNew,
)
from libs.common.store.migrate import known_migrations
from libs.common.store.sqlite import schema
from libs.common.store.sqlite.store import SqliteStore

pytestmark = pytest.mark.asyncio
NEWEST = len(known_migrations("sqlite"))


async def test_it_is_migrated_once_by_however_many(path: Path) -> None:
    stores = [SqliteStore(path) for _ in range(3)]
    assert await stores[0].schema_version() == 0
    assert await asyncio.gather(*(s.migrate() for s in stores)) == [NEWEST] * 3
    assert await stores[1].schema_version() == NEWEST
    for each in stores:
        await each.close()


async def test_a_newer_schema_is_left_alone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:-1])
    with pytest.raises(SchemaTooNew):
        await store.migrate()


async def test_a_migration_that_fails_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*schema.MIGRATIONS[:-1], schema.MIGRATIONS[-1]]
    last = broken[-1]
    broken[-1] = type(last)(last.version, last.name, "CREATE TABLE x (y); SELECT z;")
    monkeypatch.setattr(schema, "MIGRATIONS", tuple(broken))
    store = SqliteStore(path)
    with pytest.raises(StoreAway):
        await store.migrate()
    assert await store.schema_version() == 0
    await store.close()


async def test_a_schema_that_is_not_there_yet(path: Path) -> None:
    store = SqliteStore(path)
    with pytest.raises(StoreAway, match="no such table"):
        await store.counts()
    await store.migrate()
    assert (await store.counts()).requests == 0
    await store.close()
