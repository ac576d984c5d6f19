"""The store on PostgreSQL. Works behind pgbouncer in transaction mode: no session
state, no prepared statements, and each transaction sets its own limits."""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from libs.common.contracts.events import Row, StreamedEvent
from libs.common.contracts.payloads import Payload
from libs.common.contracts.prices import Price
from libs.common.routing.types import Owner
from libs.common.store.admin.changes import CHANGES
from libs.common.store.interface import Actor, HistoryQuery, Unstorable, Write
from libs.common.store.migrate import known_migrations, pending
from libs.common.store.postgres.batches import (
    Prepared,
    copy_batch,
    copy_bodies,
    merge_batch,
    merge_bodies,
    prepared,
)
from libs.common.store.postgres.calls import (
    ADAPTERS,
    Connection,
    applied_version,
    execute,
    fetch_recorded,
    fetch_rows,
    likely_spans,
    put,
    search,
    take_tables,
    tenants,
)
from libs.common.store.postgres.day_ranges import newest_first, of_life, of_request
from libs.common.store.postgres.errors import REFUSED, reporting, translated
from libs.common.store.postgres.idle_check import IdleCheck
from libs.common.store.rollups import MINUTE, QUARTER
from libs.common.store.rows import storable
from libs.common.store.store import Store

MIGRATIONS = known_migrations("postgres")

CONNECT_S = 5
WAIT_S = 3  # for a connection; a pending attempt continues for the next call
STATEMENT_S = 15
MIGRATION_S = 900
STRAYS = 5_000  # rows outside of partitions deleted per transaction
DAYS_BEHIND, DAYS_AHEAD = 1, 7
MAX_CONNECTIONS = 4
Writing = Callable[[Connection], Awaitable[int]]  # returns how many rows


class PostgresStore(Store):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._trouble = ""  # why the last connection attempt failed
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=reporting(self._note),
            kwargs={
                "context": ADAPTERS,
                "row_factory": dict_row,
                "prepare_threshold": None,
                "connect_timeout": CONNECT_S,
                "application_name": "responses-proxy",
            },
            # A process that has nothing to do holds no connection.
            min_size=0,
            max_size=MAX_CONNECTIONS,
            timeout=WAIT_S,
            # Give up early: the caller backs off and retries.
            reconnect_timeout=WAIT_S,
            check=IdleCheck(AsyncConnectionPool.check_connection),
            open=False,
        )

    async def migrate(self) -> int:
        async with self._transaction(limit_s=MIGRATION_S) as connection:
            await execute(connection, "lock_migrations")
            await execute(connection, "create_migrations")
            for migration in pending(MIGRATIONS, await applied_version(connection)):
                await connection.execute(migration.script)
                values = {"version": migration.version, "name": migration.name}
                await execute(connection, "record_migration", values)
            return await applied_version(connection)

    async def schema_version(self) -> int:
        async with self._transaction() as connection:
            try:
                return await applied_version(connection)
            except psycopg.errors.UndefinedTable:
                return 0

    async def make_partitions(self, today: date) -> int:
        days = {
            "first": today - timedelta(days=DAYS_BEHIND),
            "last": today + timedelta(days=DAYS_AHEAD),
        }
        async with self._transaction() as connection:
            await take_tables(connection)
            rows = await fetch_rows(connection, "make_partitions", days)
            return int(rows[0]["partitions"])

    async def drop_before(self, day: date) -> int:
        async with self._transaction() as connection:
            old = await fetch_rows(connection, "old_partitions", {"day": day})
        dropped = 0
        for row in old:
            async with self._transaction() as connection:
                await take_tables(connection)
                done = await fetch_rows(connection, "drop_partition", row)
                dropped += done[0]["dropped"]
        await self._delete("delete_strays", {"day": day})
        # Clients choose session ids, and may use a new one for each request.
        await self._delete("drop_sessions", {"day": day})
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        await self._drop_rollups(QUARTER, midnight)
        return dropped

    async def drop_minutes(self, before: datetime) -> None:
        await self._drop_rollups(MINUTE, before)
        await self._delete("drop_spend", {"before": before})

    async def _drop_rollups(self, step_s: int, before: datetime) -> None:
        values = {"step_seconds": step_s, "before": before}
        await self._delete("drop_rollups", values)

    async def _delete(self, query: str, given: Row) -> None:
        """Delete in parts, so that other writers run in between."""
        deleted, values = 1, {**given, "most": STRAYS}
        while deleted:
            async with self._transaction() as connection:
                rows = await fetch_rows(connection, query, values)
                deleted = rows[0]["deleted"]

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        with translated(lambda: self._trouble):
            batch = prepared(events, self.rollups)
        return await self._write(events, batch)

    def prepare(self, events: Sequence[StreamedEvent]) -> Write:
        try:
            batch = prepared(events, self.rollups)
        except REFUSED:
            return partial(self.write, events)  # which says so
        return partial(self._write, events, batch)

    async def _write(self, events: Sequence[StreamedEvent], batch: Prepared) -> int:
        return await self._copy_or_merge(
            lambda connection: copy_batch(connection, batch),
            lambda connection: merge_batch(connection, events, self.rollups),
        )

    async def write_payloads(self, payloads: Sequence[Payload]) -> int:
        return await self._copy_or_merge(
            lambda connection: copy_bodies(connection, payloads),
            lambda connection: merge_bodies(connection, payloads),
        )

    async def _copy_or_merge(self, copy: Writing, merge: Writing) -> int:
        """Copy a batch as if none of it were stored, which is the usual case. After a
        primary key violation, roll back and merge it instead."""
        try:
            async with self._transaction() as connection:
                return await copy(connection)
        except Unstorable as error:
            if not isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                raise
        async with self._transaction() as connection:
            return await merge(connection)

    async def put_prices(self, prices: Sequence[Price]) -> None:
        async with self._transaction() as connection:
            await execute(connection, "clear_prices")
            await put(connection, "put_prices", map(asdict, prices))

    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        if "\0" in id:
            return None
        async with self._transaction() as connection:
            values = {"id": id}
            rows = await search(connection, "request", values, of_request(id))
            if not rows:
                return None
            row = rows[0]
            life = of_life(row["created_at"], row["completed_at"])
            decisions = await search(connection, "decisions_of_request", values, life)
            return {**row, "decisions": decisions}

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        found: dict[str, Owner] = {}
        repeated: list[str] = []  # the newest row may only repeat these ids
        async with self._transaction() as connection:
            for span in newest_first(datetime.now(UTC)):
                left = [id_ for id_ in set(ids) - found.keys() if storable(id_)]
                if not left:
                    break
                values = {"ids": left, **span._asdict()}
                for row in await fetch_rows(connection, "owners", values):
                    # A row from before there were tenants has none; see below.
                    found[row["id"]] = Owner(
                        row["resource_id"], row["account_id"], row["tenant"] or ""
                    )
                    if row["repeated"] is not False:
                        repeated.append(row["id"])
            for id_, tenant in (await tenants(connection, repeated)).items():
                found[id_] = replace(found[id_], tenant=tenant)
        return found

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        if not storable(session_id):
            return None
        values = {"session_id": session_id, "tenant": tenant}
        async with self._transaction() as connection:
            cursor = await execute(connection, "session_seen", values)
            seen = await cursor.fetchone()
            if seen is None:
                return None
            spans = newest_first(seen["last_seen_at"], until=seen["last_seen_at"])
            rows = await search(connection, "session_owner", values, spans)
        return Owner(**rows[0], tenant=tenant) if rows else None

    async def fetch(
        self, name: str, values: Mapping[str, Any], by: Actor | None = None
    ) -> list[Row]:
        async with self._transaction() as connection:
            if by is not None and name in CHANGES:
                return await fetch_recorded(connection, name, values, by)
            return await fetch_rows(connection, name, values)

    async def close(self) -> None:
        await self._pool.close()

    async def _put(self, name: str, rows: Iterable[Row]) -> int:
        async with self._transaction() as connection:
            return await put(connection, name, rows)

    async def _page(self, query: HistoryQuery, values: Row) -> list[Row]:
        enough = 1 if query.request_id else query.limit + 1
        name = f"history_{query.table}"
        async with self._transaction() as connection:
            spans = await likely_spans(connection, query)
            return await search(connection, name, values, spans, enough)

    @staticmethod
    def _list(texts: Sequence[str]) -> list[str]:
        return list(texts)

    @asynccontextmanager
    async def _transaction(
        self, limit_s: int | None = None
    ) -> AsyncIterator[Connection]:
        """Begin a transaction with time limits, enforced by the server and here, in
        case the server stops responding."""
        limit_s = limit_s or STATEMENT_S
        limits = {
            "statement_ms": f"{limit_s * 1000}",
            "lock_ms": f"{limit_s * 1000}",
            "idle_ms": f"{limit_s * 1000}",
        }
        with translated(lambda: self._trouble):
            async with asyncio.timeout(limit_s + 2 * CONNECT_S):
                await self._pool.open(wait=False)
                async with (
                    self._pool.connection() as connection,
                    connection.transaction(),
                ):
                    await execute(connection, "limits", limits)
                    yield connection

    def _note(self, trouble: str) -> None:
        self._trouble = trouble
