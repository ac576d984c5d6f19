"""The store on SQLite: one machine, several processes on one file.

One connection in one thread. WAL, so that readers never wait for the writer;
synchronous=FULL, because an acknowledged event is gone from Redis and must be on
the disk by then: NORMAL may lose the last commits when the power fails."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from libs.common.contracts.events import (
    EVENTS,
    DecisionEvent,
    Row,
    StreamedEvent,
    StreamedPayload,
)
from libs.common.errors import StoreAway
from libs.common.routing.types import Owner
from libs.common.store.bulk import Form, tables
from libs.common.store.dead_letters import tells_interrupted
from libs.common.store.dedupe import Key, Settled, Stored, request_keys, settle
from libs.common.store.interface import (
    Book,
    Counts,
    DeadLetter,
    HistoryQuery,
    Page,
    Price,
    Unstorable,
)
from libs.common.store.migrate import known_migrations, pending
from libs.common.store.pagination import page
from libs.common.store.payload_rows import payload_rows
from libs.common.store.proxy_keys import uses
from libs.common.store.rows import (
    dead_letter_row,
    decision_row,
    event_row,
    gateway_row,
    iso,
    iso_ms,
    milliseconds,
    minted_rows,
    request_row,
    session_row,
    storable,
)
from libs.common.store.sql import Statements

SQL = Statements("sqlite")
MIGRATIONS = known_migrations("sqlite")
BUSY_MS = 5_000
BUSY_PAUSE_S = 0.01
# Pages (4 KiB) of the log before it is moved into the file: rarely enough that a
# page touched by many batches is moved once.
CHECKPOINT_PAGES = 8_192
CACHE_KIB = 32_768  # the indexes' upper pages stay in memory
DROPPED_ROWS = 2_000  # by one transaction of retention
FORM = Form(at=iso_ms, json=bytes.decode)
PARTED = ("requests", "decisions", "events", "payloads", "minted_ids")
REFUSED = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,  # a value of no storable type
    OverflowError,  # an integer beyond 64 bits
    UnicodeEncodeError,  # a lone surrogate
)

T = TypeVar("T")


class SqliteStore:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        # sqlite3 connections belong to one thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")

    async def migrate(self) -> int:
        return await self._run(_migrate)

    async def schema_version(self) -> int:
        return await self._run(_schema_version)

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
            # Between two parts other work has its turn.
            drop = partial(_drop, table=table, values=values)
            while part := await self._run(drop):
                dropped += part
        # Clients name sessions: a new one for each request would stay for ever.
        drop = partial(_drop, table="sessions", values=values)
        while await self._run(drop):
            pass
        return dropped

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        return await self._run(lambda connection: _write(connection, events))

    async def write_payloads(self, payloads: Sequence[StreamedPayload]) -> int:
        rows = list(payload_rows(payloads))
        return await self._run(lambda c: _put_alone(c, "put_payloads", rows))

    async def payloads(self, request: Row) -> list[Row]:
        values = {"id": request["id"], "created_at": request["created_at"]}
        return await self._run(lambda c: _rows(c, "payloads_of_request", values))

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        rows = [dead_letter_row(letter) for letter in letters]
        return await self._run(lambda c: _put_alone(c, "put_dead_letters", rows))

    async def put_prices(self, prices: Sequence[Price]) -> None:
        rows = [asdict(price) for price in prices]
        await self._run(lambda connection: _replace_prices(connection, rows))

    async def dead_letters(self, limit: int) -> list[Row]:
        return await self._run(lambda c: _rows(c, "dead_letters", {"rows": limit}))

    async def dead_letter_ids(self) -> list[str]:
        rows = await self._run(lambda c: _rows(c, "dead_letter_ids", {}))
        return [row["id"] for row in rows]

    async def dead_letter(self, id: str) -> Row | None:  # noqa: A002 - its column
        if not storable(id):
            return None
        rows = await self._run(lambda c: _rows(c, "dead_letter", {"id": id}))
        return rows[0] if rows else None

    async def forget_dead_letter(self, letter: Row) -> bool:
        values = {"id": letter["id"], "interrupted": tells_interrupted(letter)}
        name = "forget_dead_letter"
        return await self._run(lambda c: _put_alone(c, name, [values])) > 0

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
        return page(query, await self._run(lambda c: _rows(c, name, values)))

    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        return await self._run(lambda connection: _request(connection, id))

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        values = {"ids": json.dumps(list(filter(storable, ids)))}
        rows = await self._run(lambda connection: _rows(connection, "owners", values))
        return {row["id"]: _owner(row) for row in rows}

    async def session_owner(self, session_id: str, tenant: str = "") -> Owner | None:
        if not storable(session_id):
            return None
        values = {"session_id": session_id, "tenant": tenant}
        rows = await self._run(lambda c: _rows(c, "session_owner", values))
        return Owner(**rows[0], tenant=tenant) if rows else None

    async def counts(self) -> Counts:
        rows = await self._run(lambda connection: _rows(connection, "counts", {}))
        return Counts(**rows[0])

    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]:
        values = {"ids": json.dumps(list(ids))}
        rows = await self._run(lambda connection: _rows(connection, "gateways", values))
        return tuple(Book(**row) for row in rows)

    async def fetch(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        # One statement is a transaction by itself.
        return await self._run(lambda connection: _rows(connection, name, values))

    async def ping(self) -> None:
        await self._run(lambda connection: _rows(connection, "ping", {}))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do `work` in the thread. Cancelled, it goes on there to its end: a
        transaction is never left half done."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with _translated():
            if self._connection is None:
                self._connection = _connect(self._path)
            return work(self._connection)


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # isolation_level=None: transactions begin and end where we say so.
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS:d}")
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES:d}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB:d}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Keep a write-ahead log. Several processes that begin it at once are told that the
    database is locked without SQLite waiting, whatever `busy_timeout` says."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_S)
        else:
            return


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except REFUSED as error:
        raise Unstorable(f"SQLite refused the data: {error}") from error
    except (sqlite3.Error, OSError) as error:
        raise StoreAway(f"SQLite cannot be used: {error}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Takes the write lock at once, so that nothing read in it grows stale."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection) -> int:
    with _transaction(connection):
        connection.execute(SQL["create_migrations"])
        for migration in pending(MIGRATIONS, _schema_version(connection)):
            for statement in _statements(migration.script):
                connection.execute(statement)
            values = {"version": migration.version, "name": migration.name}
            connection.execute(SQL["record_migration"], values)
        return _schema_version(connection)


def _statements(script: str) -> Iterator[str]:
    """One by one: executescript would commit the transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _schema_version(connection: sqlite3.Connection) -> int:
    connection.execute(SQL["create_migrations"])
    return int(_rows(connection, "schema_version", {})[0]["version"])


def _write(connection: sqlite3.Connection, events: Sequence[StreamedEvent]) -> int:
    """First as if nothing of it were stored, which is nearly always so. If a
    primary key says otherwise all of it is undone, and merged."""
    try:
        return _add(connection, settle(events, {}))
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
            raise
    return _merge(connection, events)


def _add(connection: sqlite3.Connection, settled: Settled) -> int:
    with _transaction(connection):
        for name, rows in tables(settled, FORM):
            connection.executemany(SQL[name], rows)
        _put(connection, "put_sessions", map(session_row, settled.sessions))
        _put(connection, "put_gateways", map(gateway_row, settled.gateways))
        _put(connection, "touch_proxy_keys", uses(settled.requests))
        connection.execute(SQL["add_total"], {"fresh": settled.fresh})
        return len(settled.events)


def _merge(connection: sqlite3.Connection, events: Sequence[StreamedEvent]) -> int:
    with _transaction(connection):
        settled = settle(events, _known_requests(connection, events))
        decisions = [
            decision_row(e.id, e.event)
            for e in settled.events
            if isinstance(e.event, DecisionEvent)
        ]
        changed = _put(connection, "put_events", map(event_row, settled.events))
        _put(connection, "put_decisions", decisions)
        _put(connection, "put_requests", map(request_row, settled.requests))
        _put(connection, "put_minted_ids", minted_rows(settled.requests))
        _put(connection, "put_sessions", map(session_row, settled.sessions))
        _put(connection, "put_gateways", map(gateway_row, settled.gateways))
        _put(connection, "touch_proxy_keys", uses(settled.requests))
        connection.execute(SQL["add_total"], {"fresh": settled.fresh})
        return changed


def _known_requests(
    connection: sqlite3.Connection, events: Sequence[StreamedEvent]
) -> dict[Key, Stored]:
    ids = json.dumps(sorted({id_ for id_, _ in request_keys(events)}))
    return {
        (row["id"], _ms(row["created_at"])): Stored(
            row["session_id"], row["outcome"], row["total_tokens"] or 0
        )
        for row in connection.execute(SQL["known_requests"], {"ids": ids})
    }


def _ms(text: str) -> int:
    return milliseconds(datetime.fromisoformat(text))


def _put_alone(connection: sqlite3.Connection, name: str, rows: Sequence[Row]) -> int:
    with _transaction(connection):
        return _put(connection, name, rows)


def _replace_prices(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    with _transaction(connection):
        connection.execute(SQL["clear_prices"])
        _put(connection, "put_prices", rows)


def _put(connection: sqlite3.Connection, name: str, rows: Any) -> int:
    """How many rows were inserted or replaced."""
    bound = [{k: _bound(v) for k, v in row.items()} for row in rows]
    cursor = connection.executemany(SQL[name], bound)
    return max(cursor.rowcount, 0)  # -1 when there were no rows


def _bound(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return json.dumps(value) if isinstance(value, tuple) else value


def _drop(connection: sqlite3.Connection, table: str, values: Row) -> int:
    with _transaction(connection):
        return connection.execute(SQL[f"drop_{table}"], values).rowcount


def _request(connection: sqlite3.Connection, id_: str) -> Row | None:
    rows = _rows(connection, "request", {"id": id_})
    if not rows:
        return None
    decisions = _rows(connection, "decisions_of_request", {"id": id_})
    return {**rows[0], "decisions": decisions}


def _owner(row: Row) -> Owner:
    return Owner(row["resource_id"], row["account_id"], row["tenant"])


def history_statement(query: HistoryQuery) -> str:
    """SQLite does not look at values when it plans, so each leading filter has a
    statement of its own; the most selective one leads."""
    for name in ("request", "session", "resource"):
        if getattr(query, f"{name}_id") is not None:
            return f"history_{query.table}_by_{name}"
    return f"history_{query.table}"


def _rows(
    connection: sqlite3.Connection, name: str, values: Mapping[str, Any]
) -> list[Row]:
    return [_typed(dict(row)) for row in connection.execute(SQL[name], values)]


def _typed(row: Row) -> Row:
    """JSON and booleans, which SQLite keeps as text and numbers."""
    if "candidates" in row:
        row["candidates"] = json.loads(row["candidates"])
        row["degraded"] = bool(row["degraded"])
    if "truncated" in row:
        row["truncated"] = bool(row["truncated"])
    return row
