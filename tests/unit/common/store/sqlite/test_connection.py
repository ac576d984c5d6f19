"""Connections to the SQLite file, and what becomes of their errors."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from libs.common.errors import StoreAway
from libs.common.store.sqlite import connection
from libs.common.store.sqlite.store import SqliteStore
from tests.support.databases.sqlite import BATCH

pytestmark = pytest.mark.asyncio


async def test_an_acknowledged_event_is_on_the_disk(store: SqliteStore) -> None:
    # Settings of the connection that writes; FULL is 2.
    connection = store._connection
    assert connection is not None

    def told(name: str) -> Any:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    loop = asyncio.get_running_loop()
    names = ("journal_mode", "synchronous", "foreign_keys")
    found = [await loop.run_in_executor(store._thread, told, name) for name in names]
    assert found == ["wal", 2, 1]


async def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    store = SqliteStore(folder)
    with pytest.raises(StoreAway, match="SQLite cannot be used"):
        await store.ping()
    await store.close()


async def test_a_database_that_is_busy_is_waited_for(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_MS", 20)
    other = SqliteStore(path)
    with sqlite3.connect(path, isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAway, match="locked"):
            await other.write(BATCH)
        holder.execute("ROLLBACK")
    holder.close()
    assert await other.write(BATCH) == 4
    await other.close()
