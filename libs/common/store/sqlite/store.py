"""The store on SQLite: one file, used by several processes on one machine.

Uses one connection in one thread. WAL lets readers run during a write.
synchronous=FULL, because Redis deletes an event after its acknowledgment: NORMAL may
lose the last commits in a power failure."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from libs.common.contracts.events import EVENTS, Row, StreamedEvent, StreamedPayload
from libs.common.routing.types import Owner
from libs.common.store.dead_letters import is_interrupted
from libs.common.store.interface import (
    Book,
    Counts,
    DeadLetter,
    HistoryQuery,
    Page,
    Price,
)
from libs.common.store.pagination import page
from libs.common.store.payload_rows import payload_rows
from libs.common.store.rows import dead_letter_row, iso, storable
from libs.common.store.sqlite.batches import write_batch
from libs.common.store.sqlite.calls import (
    drop_rows,
    fetch_rows,
    history_statement,
    owner_of,
    put_alone,
    replace_prices,
    request_with_decisions,
)
from libs.common.store.sqlite.connection import connect, translated
from libs.common.store.sqlite.schema import migrate, schema_version

DROPPED_ROWS = 2_000  # by one transaction of retention
PARTED = ("requests", "decisions", "events", "payloads", "minted_ids")

T = TypeVar("T")


class SqliteStore:
    def __init__(self, path: Path) -> None:
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
        values = {
            "before": iso(datetime(day.year, day.month, day.day, tzinfo=UTC)),
            "kinds": json.dumps(list(EVENTS)),
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
        return dropped

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        return await self._run(lambda connection: write_batch(connection, events))

    async def write_payloads(self, payloads: Sequence[StreamedPayload]) -> int:
        rows = list(payload_rows(payloads))
        return await self._run(lambda c: put_alone(c, "put_payloads", rows))

    async def payloads(self, request: Row) -> list[Row]:
        values = {"id": request["id"], "created_at": request["created_at"]}
        return await self._run(lambda c: fetch_rows(c, "payloads_of_request", values))

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        rows = [dead_letter_row(letter) for letter in letters]
        return await self._run(lambda c: put_alone(c, "put_dead_letters", rows))

    async def put_prices(self, prices: Sequence[Price]) -> None:
        rows = [asdict(price) for price in prices]
        await self._run(lambda connection: replace_prices(connection, rows))

    async def dead_letters(self, limit: int) -> list[Row]:
        return await self._run(lambda c: fetch_rows(c, "dead_letters", {"rows": limit}))

    async def dead_letter_ids(self) -> list[str]:
        rows = await self._run(lambda c: fetch_rows(c, "dead_letter_ids", {}))
        return [row["id"] for row in rows]

    async def dead_letter(self, id: str) -> Row | None:  # noqa: A002 - its column
        if not storable(id):
            return None
        rows = await self._run(lambda c: fetch_rows(c, "dead_letter", {"id": id}))
        return rows[0] if rows else None

    async def forget_dead_letter(self, letter: Row) -> bool:
        values = {"id": letter["id"], "interrupted": is_interrupted(letter)}
        name = "forget_dead_letter"
        return await self._run(lambda c: put_alone(c, name, [values])) > 0

    async def history(self, query: HistoryQuery) -> Page:
        cursor = query.after
        values = {
            "session_id": query.session_id,
            "resource_id": query.resource_id,
            "request_id": query.request_id,
            "before_at": cursor.at if cursor else "9999",  # after every time
            "before_id": cursor.id if cursor else "",
            "rows": query.limit + 1,
        }
        name = history_statement(query)
        return page(query, await self._run(lambda c: fetch_rows(c, name, values)))

    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        return await self._run(
            lambda connection: request_with_decisions(connection, id)
        )

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        values = {"ids": json.dumps(list(filter(storable, ids)))}
        rows = await self._run(
            lambda connection: fetch_rows(connection, "owners", values)
        )
        return {row["id"]: owner_of(row) for row in rows}

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        if not storable(session_id):
            return None
        values = {"session_id": session_id, "tenant": tenant}
        rows = await self._run(lambda c: fetch_rows(c, "session_owner", values))
        return Owner(**rows[0], tenant=tenant) if rows else None

    async def counts(self) -> Counts:
        rows = await self._run(lambda connection: fetch_rows(connection, "counts", {}))
        return Counts(**rows[0])

    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]:
        values = {"ids": json.dumps(list(ids))}
        rows = await self._run(
            lambda connection: fetch_rows(connection, "gateways", values)
        )
        return tuple(Book(**row) for row in rows)

    async def fetch(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        # A single statement is its own transaction.
        return await self._run(lambda connection: fetch_rows(connection, name, values))

    async def ping(self) -> None:
        await self._run(lambda connection: fetch_rows(connection, "ping", {}))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

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
