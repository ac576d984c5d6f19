"""Runs named statements on PostgreSQL, in a transaction that the caller began."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import uuid_utils
from psycopg import AsyncConnection
from psycopg.adapt import AdaptersMap
from psycopg.rows import DictRow
from psycopg.types.string import BytesBinaryDumper

from libs.common.contracts.events import Row, StreamedEvent, encode
from libs.common.store.admin.changes import CHANGES, entry, require_expected
from libs.common.store.bulk import Form, Plain
from libs.common.store.dedupe import Key, Stored, request_keys, stored_requests
from libs.common.store.interface import Actor, HistoryQuery
from libs.common.store.postgres.day_ranges import (
    Span,
    newest_first,
    of_request,
    of_session,
)
from libs.common.store.rows import instant, iso
from libs.common.store.sql import Statements

SQL = Statements("postgres")
# Creating a partition locks the default partition exclusively; dropping one locks the
# whole table. A lock request that waits behind a long dump blocks all later ones, so
# it fails early and is retried. (DETACH CONCURRENTLY needs no such lock, but does not
# work with a default partition.)
TABLE_LOCK_MS = 200

# Binary COPY of jsonb: a version byte, then the JSON text.
JSONB = "bytea"
# Of timestamptz: microseconds since 2000, an integer.
TIME = "int8"
EPOCH_MS = 946_684_800_000


def copied_time(ms: int) -> int:
    return (ms - EPOCH_MS) * 1000


FORM = Form(at=copied_time, json=b"\x01".__add__)
# Types of `bulk.COLUMNS` and `payload_rows.COLUMNS`, as COPY sends them.
TYPES: Mapping[str, Sequence[str]] = {
    "events": ("text", "text", TIME, JSONB),
    "requests": (
        "text", TIME, TIME, *("text",) * 12, "int4",
        *("text",) * 3, "int4", *("float8",) * 4, *("int8",) * 5, "text",
        "int8", "int8", *("text",) * 4, "int8",
    ),
    "decisions": (
        "text", "text", "int4", TIME, *("text",) * 4, JSONB, "bool", "text",
        "int8",
    ),
    "minted_ids": ("text", TIME, *("text",) * 4, "bool"),
    "payloads": (
        "text", "text", TIME, "text", "text", "int8", "bool", "text", "bytea",
    ),
}  # fmt: skip

# By default bytea is written by a class of psycopg that is not compiled.
ADAPTERS = AdaptersMap(psycopg.adapters)
ADAPTERS.register_dumper(bytes, BytesBinaryDumper)

Connection = AsyncConnection[DictRow]


async def execute(
    connection: Connection, name: str, values: Mapping[str, Any] | None = None
) -> psycopg.AsyncCursor[DictRow]:
    """Run the statement `name`. All statements except COPY go through here."""
    return await connection.execute(SQL[name], values)


async def take_tables(connection: Connection) -> None:
    """Take the locks to change partitions: one process at a time, and between two
    batches. Waits for these locks, but then only briefly for table locks."""
    await execute(connection, "lock_migrations")
    await execute(connection, "lock_writers")
    await execute(connection, "limit_locks", {"lock_ms": f"{TABLE_LOCK_MS}"})


async def applied_version(connection: Connection) -> int:
    """Return the version of the newest applied migration."""
    return int((await fetch_rows(connection, "schema_version"))[0]["version"])


async def known_requests(
    connection: Connection, events: Sequence[StreamedEvent]
) -> dict[Key, Stored]:
    """Return the stored rows of the requests in `events`."""
    keys = request_keys(events)
    if not keys:
        return {}
    return stored_requests(
        await fetch_rows(connection, "known_requests", spanned(keys))
    )


def spanned(keys: Collection[Key]) -> dict[str, Any]:
    """The ids of requests, and the span of time in which they were created."""
    return {
        "ids": [id_ for id_, _ in keys],
        "oldest": instant(min(ms for _, ms in keys)),
        "newest": instant(max(ms for _, ms in keys)),
    }


async def copy_rows(connection: Connection, table: str, rows: Iterable[Plain]) -> None:
    """Insert new rows by COPY, the cheapest method."""
    async with connection.cursor().copy(SQL[f"add_{table}"]) as copy:
        copy.set_types(TYPES[table])
        # `write_row` of `copy` is the same, with a coroutine for each row.
        write_row = copy.formatter.write_row
        for row in rows:
            if data := write_row(row):
                await copy.write(data)


async def put(connection: Connection, name: str, rows: Iterable[Row]) -> int:
    """Write a batch in one statement; return how many rows changed. Passes rows as
    JSON, at a third of the cost of arrays for unnest."""
    listed = list(rows)
    if not listed:
        return 0
    values = {"rows": encode(listed).decode()}
    return (await execute(connection, name, values)).rowcount


async def fetch_rows(
    connection: Connection, name: str, values: Mapping[str, Any] | None = None
) -> list[Row]:
    """Run a statement and return its rows, with times in ISO 8601."""
    cursor = await execute(connection, name, values)
    return [_shown(row) for row in await cursor.fetchall()]


async def fetch_recorded(
    connection: Connection, name: str, values: Mapping[str, Any], by: Actor
) -> list[Row]:
    """Run a statement of the admin API, and record what it changed."""
    change = CHANGES[name]
    await execute(connection, "lock_audit")
    before: list[Row] = []
    if change.reads is not None:
        before = await fetch_rows(connection, change.reads, change.reading(values))
    require_expected(before, by)
    after = await fetch_rows(connection, name, values)
    made = str(uuid_utils.uuid7()), datetime.now(UTC)
    recorded = entry(name, values, by, (before, after), made)
    if recorded is not None:
        await execute(connection, "add_audit", recorded)
    return after


async def search(
    connection: Connection,
    name: str,
    values: Mapping[str, Any],
    spans: Sequence[Span],
    enough: int = 1,
) -> list[Row]:
    """Return the rows of the first span that has `enough`, or else of the last span."""
    rows: list[Row] = []
    for span in spans:
        rows = await fetch_rows(connection, name, {**values, **span._asdict()})
        if len(rows) >= enough:
            break
    return rows


async def tenants(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """Return the tenant of each id, according to its oldest row."""
    if not ids:
        return {}
    found: dict[str, str] = {}
    for row in await fetch_rows(connection, "tenants", {"ids": ids}):
        tenant = row["tenant"]
        if tenant is None:
            found_rows = await fetch_rows(connection, "tenant_of_request", row)
            tenant = found_rows[0]["tenant"] if found_rows else ""
        found[row["id"]] = tenant
    return found


async def likely_spans(connection: Connection, query: HistoryQuery) -> Sequence[Span]:
    """Return the day ranges to search for a page of history, in order."""
    now = datetime.now(UTC)
    if query.request_id is not None:
        return of_request(query.request_id)
    if query.session_id is not None:
        values = {"session_id": query.session_id}
        seen = await (await execute(connection, "session_seen", values)).fetchone()
        return of_session(seen["first_seen_at"] if seen else None, now)
    if query.after is None and query.until is None:
        return newest_first(now)
    at = datetime.fromisoformat(query.before.at)
    return newest_first(at, until=at)


def _shown(row: Row) -> Row:
    return {k: iso(v) if isinstance(v, datetime) else v for k, v in row.items()}
