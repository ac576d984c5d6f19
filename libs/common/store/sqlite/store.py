"""The store on SQLite: one file, used by several processes on one machine.

Uses one connection in one thread. WAL lets readers run during a write.
synchronous=FULL, because Redis deletes an event after its acknowledgment: NORMAL may
lose the last commits in a power failure."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from libs.common.contracts.events import Row, StreamedEvent
from libs.common.contracts.payloads import Payload
from libs.common.contracts.prices import Price
from libs.common.routing.types import Owner
from libs.common.store.admin.changes import CHANGES
from libs.common.store.interface import Actor, HistoryQuery
from libs.common.store.payload_rows import payload_rows
from libs.common.store.rollups import MINUTE, QUARTER
from libs.common.store.rows import iso, storable
from libs.common.store.sqlite.batches import write_batch, write_bodies
from libs.common.store.sqlite.calls import (
    drop_rows,
    fetch_recorded,
    fetch_rows,
    history_statement,
    owner_of,
    put_alone,
    replace_prices,
)
from libs.common.store.sqlite.connection import connect, translated
from libs.common.store.sqlite.schema import migrate, schema_version
from libs.common.store.store import Store

DROPPED_ROWS = 2_000  # by one transaction of retention
PARTED = ("requests", "decisions", "events", "payloads", "minted_ids")

T = TypeVar("T")


class SqliteStore(Store):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._connection: sqlite3.Connection | None = None
        # sqlite3 connections belong to one thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")

    async def migrate(self) -> int:
        return await self._run(migrate)

    async def schema_version(self) -> int:
        return await self._run(schema_version)

    async def make_partitions(self, today: date) -> int:
        return 0

    async def drop_before(self, day: date) -> int:
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        values = {
            "before": iso(midnight),
            "most": DROPPED_ROWS,
        }
        dropped = 0
        for table in PARTED:
            # Delete in parts, so that other work runs in between.
            drop = partial(drop_rows, table=table, values=values)
            while part := await self._run(drop):
                dropped += part
        # Clients choose session ids, and may use a new one for each request.
        drop = partial(drop_rows, table="sessions", values=values)
        while await self._run(drop):
            pass
        await self._drop_rollups(QUARTER, midnight)
        return dropped

    async def drop_minutes(self, before: datetime) -> None:
        await self._drop_rollups(MINUTE, before)

    async def _drop_rollups(self, step_s: int, before: datetime) -> None:
        values = {"step_seconds": step_s, "before": iso(before), "most": DROPPED_ROWS}
        drop = partial(drop_rows, table="rollups", values=values)
        while await self._run(drop):
            pass

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        return await self._run(lambda c: write_batch(c, events, self.rollups))

    async def write_payloads(self, payloads: Sequence[Payload]) -> int:
        return await self._run(lambda c: write_bodies(c, payload_rows(payloads)))

    async def put_prices(self, prices: Sequence[Price]) -> None:
        rows = [asdict(price) for price in prices]
        await self._run(lambda connection: replace_prices(connection, rows))

    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        rows = await self.fetch("request", {"id": id})
        if not rows:
            return None
        decisions = await self.fetch("decisions_of_request", {"id": id})
        return {**rows[0], "decisions": decisions}

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        rows = await self.fetch("owners", {"ids": self._list(filter(storable, ids))})
        return {row["id"]: owner_of(row) for row in rows}

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        if not storable(session_id):
            return None
        values = {"session_id": session_id, "tenant": tenant}
        rows = await self.fetch("session_owner", values)
        return Owner(**rows[0], tenant=tenant) if rows else None

    async def fetch(
        self, name: str, values: Mapping[str, Any], by: Actor | None = None
    ) -> list[Row]:
        if by is not None and name in CHANGES:
            return await self._run(lambda c: fetch_recorded(c, name, values, by))
        # A single statement is its own transaction.
        return await self._run(lambda connection: fetch_rows(connection, name, values))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def _put(self, name: str, rows: Iterable[Row]) -> int:
        return await self._run(lambda connection: put_alone(connection, name, rows))

    async def _page(self, query: HistoryQuery, values: Row) -> list[Row]:
        return await self.fetch(history_statement(query), values)

    @staticmethod
    def _list(texts: Iterable[str]) -> str:
        return json.dumps(list(texts))

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in the thread. If the caller is canceled, the thread still
        finishes the transaction."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with translated():
            if self._connection is None:
                self._connection = connect(self._path)
            return work(self._connection)
