"""The store on Postgres, also behind pgbouncer in transaction mode: no session
state, no prepared statements, every transaction brings its own limits."""

import asyncio
import json
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from libs.common.asks import Owner
from libs.common.contracts import (
    DecisionEvent,
    Row,
    StreamedEvent,
    StreamedPayload,
)
from libs.common.dead_letters import tells_interrupted
from libs.common.errors import StoreAway
from libs.common.store.bulk import Form, Plain, tables
from libs.common.store.causes import telling
from libs.common.store.migrate import known_migrations, pending
from libs.common.store.pages import page
from libs.common.store.payloads import as_columns, payload_rows
from libs.common.store.port import (
    Book,
    Counts,
    DeadLetter,
    HistoryQuery,
    Page,
    Price,
    Unstorable,
)
from libs.common.store.proxy_keys import uses
from libs.common.store.rows import (
    dead_letter_row,
    decision_row,
    event_row,
    gateway_row,
    instant,
    iso,
    milliseconds,
    minted_rows,
    request_row,
    session_row,
    storable,
)
from libs.common.store.settling import Key, Stored, request_keys, settle
from libs.common.store.spans import (
    Span,
    newest_first,
    of_life,
    of_request,
    of_session,
)
from libs.common.store.statements import Statements

SQL = Statements("postgres")
MIGRATIONS = known_migrations("postgres")

CONNECT_S = 5
WAIT_S = 3  # for a connection; one under way goes on and serves the next call
STATEMENT_S = 15
MIGRATION_S = 900
# A new partition needs the default one to itself, one that goes the whole table;
# who waits for that behind a long dump keeps everybody waiting, so it gives up at
# once and tries again later. (DETACH CONCURRENTLY needs no such lock, but there
# must be no default partition.)
TABLE_LOCK_MS = 200
STRAYS = 5_000  # rows of the default partition deleted at once
DAYS_BEHIND, DAYS_AHEAD = 1, 7
MAX_CONNECTIONS = 4
REFUSED = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,  # a value too long for its index
    OverflowError,  # an integer beyond 64 bits
    UnicodeEncodeError,  # a lone surrogate
)

# JSON for COPY in binary form goes as it is: a version byte, then the text.
JSONB = "bytea"
FORM = Form(at=instant, json=b"\x01".__add__)
# The types of the columns of each `add_*.sql`, in its order.
TYPES: Mapping[str, Sequence[str]] = {
    "add_events": ("text", "text", "timestamptz", JSONB),
    "add_requests": (
        "text", "timestamptz", "timestamptz", *("text",) * 11, "int4",
        *("text",) * 3, "int4", *("float8",) * 4, *("int8",) * 5, "text",
        "int8", "int8", *("text",) * 4,
    ),
    "add_decisions": (
        "text", "text", "int4", "timestamptz", *("text",) * 4, JSONB, "bool", "text",
    ),
    "add_minted_ids": ("text", "timestamptz", "text", "text", "text"),
}  # fmt: skip

Connection = AsyncConnection[DictRow]


class PostgresStore:
    def __init__(self, url: str) -> None:
        self._trouble = ""  # why it could not be connected to, the last time
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=telling(self._note),
            kwargs={
                "row_factory": dict_row,
                "prepare_threshold": None,
                "connect_timeout": CONNECT_S,
                "application_name": "responses-proxy",
            },
            # None is kept for its own sake: a database that sleeps may sleep.
            min_size=0,
            max_size=MAX_CONNECTIONS,
            timeout=WAIT_S,
            # Give up soon: the caller backs off, and its next call tries afresh.
            reconnect_timeout=WAIT_S,
            # A restarted server's dead connections are noticed before use.
            check=AsyncConnectionPool.check_connection,
            open=False,
        )

    async def migrate(self) -> int:
        async with self._transaction(limit_s=MIGRATION_S) as connection:
            await _execute(connection, "lock_migrations")
            await _execute(connection, "create_migrations")
            for migration in pending(MIGRATIONS, await _version(connection)):
                await connection.execute(migration.script)
                values = {"version": migration.version, "name": migration.name}
                await _execute(connection, "record_migration", values)
            return await _version(connection)

    async def schema_version(self) -> int:
        async with self._transaction() as connection:
            try:
                return await _version(connection)
            except psycopg.errors.UndefinedTable:
                return 0

    async def make_partitions(self, today: date) -> int:
        days = {
            "first": today - timedelta(days=DAYS_BEHIND),
            "last": today + timedelta(days=DAYS_AHEAD),
        }
        async with self._transaction() as connection:
            await _take_tables(connection)
            rows = await _rows(connection, "make_partitions", days)
            return int(rows[0]["partitions"])

    async def drop_before(self, day: date) -> int:
        async with self._transaction() as connection:
            old = await _rows(connection, "old_partitions", {"day": day})
        dropped = 0
        for row in old:
            async with self._transaction() as connection:
                await _take_tables(connection)
                done = await _rows(connection, "drop_partition", row)
                dropped += done[0]["dropped"]
        deleted = 1
        while deleted:
            values = {"day": day, "most": STRAYS}
            async with self._transaction() as connection:
                rows = await _rows(connection, "delete_strays", values)
                deleted = rows[0]["deleted"]
        return dropped

    async def write(self, events: Sequence[StreamedEvent]) -> int:
        """First as if nothing of it were stored, which is nearly always so. If a
        primary key says otherwise all of it is undone, and merged."""
        try:
            return await self._copy(events)
        except Unstorable as error:
            if not isinstance(error.__cause__, psycopg.errors.UniqueViolation):
                raise
        return await self._merge(events)

    async def _copy(self, events: Sequence[StreamedEvent]) -> int:
        settled = settle(events, {})
        async with self._transaction() as connection:
            await _execute(connection, "lock_writers")
            for name, rows in tables(settled, FORM):
                await _copy(connection, name, rows)
            await _put(connection, "put_sessions", map(session_row, settled.sessions))
            await _put(connection, "put_gateways", map(gateway_row, settled.gateways))
            await _put(connection, "touch_proxy_keys", uses(settled.requests))
            if settled.fresh:
                await _execute(connection, "add_total", {"fresh": settled.fresh})
            return len(settled.events)

    async def _merge(self, events: Sequence[StreamedEvent]) -> int:
        async with self._transaction() as connection:
            await _execute(connection, "lock_writers")
            settled = settle(events, await _known_requests(connection, events))
            decisions = [
                decision_row(e.id, e.event)
                for e in settled.events
                if isinstance(e.event, DecisionEvent)
            ]
            changed = await _put(
                connection, "put_events", map(event_row, settled.events)
            )
            await _put(connection, "put_decisions", decisions)
            await _put(connection, "put_requests", map(request_row, settled.requests))
            await _put(connection, "put_minted_ids", minted_rows(settled.requests))
            await _put(connection, "put_sessions", map(session_row, settled.sessions))
            await _put(connection, "put_gateways", map(gateway_row, settled.gateways))
            await _put(connection, "touch_proxy_keys", uses(settled.requests))
            if settled.fresh:
                await _execute(connection, "add_total", {"fresh": settled.fresh})
            return changed

    async def write_payloads(self, payloads: Sequence[StreamedPayload]) -> int:
        values = as_columns(list(payload_rows(payloads)))
        async with self._transaction() as connection:
            await _execute(connection, "lock_partitions")
            return (await _execute(connection, "put_payloads", values)).rowcount

    async def payloads(self, request: Row) -> list[Row]:
        values = {"id": request["id"], "created_at": request["created_at"]}
        async with self._transaction() as connection:
            return await _rows(connection, "payloads_of_request", values)

    async def write_dead_letters(self, letters: Sequence[DeadLetter]) -> int:
        async with self._transaction() as connection:
            rows = map(dead_letter_row, {le.id: le for le in letters}.values())
            return await _put(connection, "put_dead_letters", rows)

    async def put_prices(self, prices: Sequence[Price]) -> None:
        async with self._transaction() as connection:
            await _execute(connection, "clear_prices")
            await _put(connection, "put_prices", map(asdict, prices))

    async def dead_letters(self, limit: int) -> list[Row]:
        async with self._transaction() as connection:
            return await _rows(connection, "dead_letters", {"rows": limit})

    async def dead_letter_ids(self) -> list[str]:
        async with self._transaction() as connection:
            rows = await _rows(connection, "dead_letter_ids")
        return [row["id"] for row in rows]

    async def dead_letter(self, id: str) -> Row | None:  # noqa: A002 - its column
        if not storable(id):
            return None
        async with self._transaction() as connection:
            rows = await _rows(connection, "dead_letter", {"id": id})
        return rows[0] if rows else None

    async def forget_dead_letter(self, letter: Row) -> bool:
        values = {"id": letter["id"], "interrupted": tells_interrupted(letter)}
        async with self._transaction() as connection:
            done = await _execute(connection, "forget_dead_letter", values)
        return done.rowcount > 0

    async def history(self, query: HistoryQuery) -> Page:
        cursor = query.after
        values = {
            "session_id": query.session_id,
            "resource_id": query.resource_id,
            "request_id": query.request_id,
            "before_at": cursor.at if cursor else "infinity",
            "before_id": cursor.id if cursor else "",
            "rows": query.limit + 1,
        }
        enough = 1 if query.request_id else query.limit + 1
        name = f"history_{query.table}"
        async with self._transaction() as connection:
            spans = await _spans(connection, query)
            rows = await _searched(connection, name, values, spans, enough)
            return page(query, rows)

    async def request(self, id: str) -> Row | None:  # noqa: A002 - its column
        if "\0" in id:
            return None
        async with self._transaction() as connection:
            values = {"id": id}
            rows = await _searched(connection, "request", values, of_request(id))
            if not rows:
                return None
            row = rows[0]
            life = of_life(row["created_at"], row["completed_at"])
            decisions = await _searched(
                connection, "decisions_of_request", values, life
            )
            return {**row, "decisions": decisions}

    async def owners(self, ids: Sequence[str]) -> dict[str, Owner]:
        found: dict[str, Owner] = {}
        async with self._transaction() as connection:
            for span in newest_first(datetime.now(UTC)):
                left = [id_ for id_ in set(ids) - found.keys() if storable(id_)]
                if not left:
                    break
                values = {"ids": left, **span._asdict()}
                for row in await _rows(connection, "owners", values):
                    found[row["id"]] = Owner(row["resource_id"], row["account_id"])
        return found

    async def session_owner(self, session_id: str) -> Owner | None:
        if not storable(session_id):
            return None
        values = {"session_id": session_id}
        async with self._transaction() as connection:
            cursor = await _execute(connection, "session_seen", values)
            seen = await cursor.fetchone()
            if seen is None:
                return None
            spans = newest_first(seen["last_seen_at"], until=seen["last_seen_at"])
            rows = await _searched(connection, "session_owner", values, spans)
        return Owner(**rows[0]) if rows else None

    async def counts(self) -> Counts:
        async with self._transaction() as connection:
            return Counts(**(await _rows(connection, "counts"))[0])

    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]:
        async with self._transaction() as connection:
            rows = await _rows(connection, "gateways", {"ids": list(ids)})
        return tuple(Book(**row) for row in rows)

    async def fetch(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        async with self._transaction() as connection:
            return await _rows(connection, name, values)

    async def ping(self) -> None:
        async with self._transaction() as connection:
            await _execute(connection, "ping")

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def _transaction(
        self, limit_s: int | None = None
    ) -> AsyncIterator[Connection]:
        """A bounded transaction: by the server, and here in case the server no
        longer answers."""
        limit_s = limit_s or STATEMENT_S
        limits = {
            "statement_ms": f"{limit_s * 1000}",
            "lock_ms": f"{limit_s * 1000}",
            "idle_ms": f"{limit_s * 1000}",
        }
        with _translated(lambda: self._trouble):
            async with asyncio.timeout(limit_s + 2 * CONNECT_S):
                await self._pool.open(wait=False)
                async with (
                    self._pool.connection() as connection,
                    connection.transaction(),
                ):
                    await _execute(connection, "limits", limits)
                    yield connection

    def _note(self, trouble: str) -> None:
        self._trouble = trouble


@contextmanager
def _translated(trouble: Callable[[], str]) -> Iterator[None]:
    """Refused data is the data's fault; anything else may pass: a full disk, a
    failover to a read-only server, a schema not migrated yet."""
    try:
        yield
    except REFUSED as error:
        raise Unstorable(f"Postgres refused the data: {error}") from error
    except PoolTimeout as error:
        raise StoreAway(f"Postgres cannot be used: {trouble() or error}") from error
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise StoreAway(f"Postgres cannot be used: {error}") from error


async def _take_tables(connection: Connection) -> None:
    """One process changes partitions at a time, and between two batches: its turn
    is waited for, tables then are not."""
    await _execute(connection, "lock_migrations")
    await _execute(connection, "lock_writers")
    await _execute(connection, "limit_locks", {"lock_ms": f"{TABLE_LOCK_MS}"})


async def _version(connection: Connection) -> int:
    return int((await _rows(connection, "schema_version"))[0]["version"])


async def _known_requests(
    connection: Connection, events: Sequence[StreamedEvent]
) -> dict[Key, Stored]:
    keys = request_keys(events)
    if not keys:
        return {}
    values = {
        "ids": [id_ for id_, _ in keys],
        "oldest": instant(min(ms for _, ms in keys)),
        "newest": instant(max(ms for _, ms in keys)),
    }
    cursor = await _execute(connection, "known_requests", values)
    return {
        (row["id"], milliseconds(row["created_at"])): Stored(
            row["session_id"], row["outcome"], row["total_tokens"] or 0
        )
        for row in await cursor.fetchall()
    }


async def _copy(connection: Connection, name: str, rows: Iterable[Plain]) -> None:
    async with connection.cursor().copy(SQL[name]) as copy:
        copy.set_types(TYPES[name])
        for row in rows:
            await copy.write_row(row)


async def _put(connection: Connection, name: str, rows: Iterable[Row]) -> int:
    """A whole batch in one statement, as JSON, which costs a third of what arrays
    for unnest cost here; how many rows changed."""
    listed = list(rows)
    if not listed:
        return 0
    values = {"rows": json.dumps(listed, default=iso)}
    return (await _execute(connection, name, values)).rowcount


async def _rows(
    connection: Connection, name: str, values: Mapping[str, Any] | None = None
) -> list[Row]:
    cursor = await _execute(connection, name, values)
    return [_shown(row) for row in await cursor.fetchall()]


async def _searched(
    connection: Connection,
    name: str,
    values: Mapping[str, Any],
    spans: Sequence[Span],
    enough: int = 1,
) -> list[Row]:
    """The rows of the first span that has `enough`, or of the last one."""
    rows: list[Row] = []
    for span in spans:
        rows = await _rows(connection, name, {**values, **span._asdict()})
        if len(rows) >= enough:
            break
    return rows


async def _spans(connection: Connection, query: HistoryQuery) -> Sequence[Span]:
    now = datetime.now(UTC)
    if query.request_id is not None:
        return of_request(query.request_id)
    if query.session_id is not None:
        values = {"session_id": query.session_id}
        seen = await (await _execute(connection, "session_seen", values)).fetchone()
        return of_session(seen["first_seen_at"] if seen else None, now)
    if query.after is None:
        return newest_first(now)
    at = datetime.fromisoformat(query.after.at)
    return newest_first(at, until=at)


def _shown(row: Row) -> Row:
    return {k: iso(v) if isinstance(v, datetime) else v for k, v in row.items()}


async def _execute(
    connection: Connection, name: str, values: Mapping[str, Any] | None = None
) -> psycopg.AsyncCursor[DictRow]:
    return await connection.execute(SQL[name], values)
