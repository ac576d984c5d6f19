"""Migrations of SQLite."""

import asyncio
import sqlite3
from contextlib import closing
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


async def test_events_that_an_interrupted_retention_left_are_deleted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until migration 20 it deleted rows first, and their events later."""
    events = [
        ("gone", "request", "2026-11-01T00:00:00.000Z"),
        ("gone", "decision", "2026-11-01T00:00:00.000Z"),
        ("old", "health", "2026-11-01T00:00:00.000Z"),
        ("kept", "decision", "2026-11-02T00:00:00.000Z"),
    ]
    kept = """INSERT INTO decisions
        (id, request_id, attempt, created_at, reason, candidates, degraded)
        VALUES ('kept', 'r', 1, '2026-11-02T00:00:00.000Z', 'affinity', '[]', 0)"""
    store = SqliteStore(path)
    with monkeypatch.context() as before:
        before.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:19])
        assert await store.migrate() == 19
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, '{}')", events)
        connection.execute(kept)
    await store.migrate()
    with closing(sqlite3.connect(path)) as connection:
        left = connection.execute("SELECT id, kind FROM events ORDER BY id")
        assert left.fetchall() == [("kept", "decision"), ("old", "health")]
    await store.close()
