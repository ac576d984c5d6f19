"""Writes batches of events, and of captured bodies, to PostgreSQL, in the transaction
its caller has begun."""

from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from libs.common.contracts.events import Row, StreamedEvent, encode
from libs.common.contracts.payloads import Payload
from libs.common.store.bulk import (
    COLUMNS,
    OF_EVENTS,
    TEXT,
    Delta,
    Plain,
    deltas,
    spend,
    tables,
)
from libs.common.store.dedupe import Changes, dedupe
from libs.common.store.payload_rows import as_columns, payload_rows
from libs.common.store.postgres.calls import (
    FORM,
    Connection,
    copied_time,
    copy_rows,
    execute,
    known_requests,
    put,
    spanned,
)
from libs.common.store.rollups import Rollups

# Parameters of `add_batch`, by the statements of SQLite that do the same. It has one
# shard, which tells nobody of its spend.
ADDED = ("put_sessions", "put_gateways", "touch_proxy_keys", "put_rollups", "add_spend")


class Prepared(NamedTuple):
    """The rows of a batch as if nothing of it were stored."""

    events: int
    tables: Sequence[tuple[str, Sequence[Plain]]]
    added: Row | None


def prepared(events: Sequence[StreamedEvent], rollups: Rollups) -> Prepared:
    changes = dedupe(events, {})
    rows = list(tables(changes, FORM))
    return Prepared(len(changes.events), rows, _added(changes, rollups))


async def copy_batch(connection: Connection, batch: Prepared) -> int:
    """Insert a batch by COPY; returns how many events. Raises `UniqueViolation` when
    one of them is already stored."""
    await execute(connection, "lock_writers")
    for table, rows in batch.tables:
        await copy_rows(connection, table, rows)
    if batch.added:
        await execute(connection, "add_batch", batch.added)
    return batch.events


async def merge_batch(
    connection: Connection, events: Sequence[StreamedEvent], rollups: Rollups
) -> int:
    """Store what is new in `events`; returns how many events changed a row."""
    await execute(connection, "lock_writers")
    changes = dedupe(events, await known_requests(connection, events))
    if changes.replaced:
        await execute(connection, "drop_interrupted", spanned(changes.replaced))
    changed = 0
    for table, rows in tables(changes, TEXT):
        named = (dict(zip(COLUMNS[table], row, strict=True)) for row in rows)
        added = await put(connection, f"put_{table}", named)
        changed += added if table in OF_EVENTS else 0
    if added_up := _added(changes, rollups):
        await execute(connection, "add_batch", added_up)
    return changed


async def copy_bodies(connection: Connection, payloads: Sequence[Payload]) -> int:
    """Insert captured bodies by COPY; returns how many rows. Raises `UniqueViolation`
    when one of them is already stored."""
    await execute(connection, "lock_partitions")
    # In the order of the primary key: two writers with the same rows do not deadlock.
    rows = sorted(payload_rows(payloads, copied_time), key=itemgetter(0, 1))
    await copy_rows(connection, "payloads", rows)
    return len(rows)


async def merge_bodies(connection: Connection, payloads: Sequence[Payload]) -> int:
    """Store those that are new; returns how many rows."""
    await execute(connection, "lock_partitions")
    values = as_columns(list(payload_rows(payloads)))
    return (await execute(connection, "put_payloads", values)).rowcount


def _added(changes: Changes, rollups: Rollups) -> Row | None:
    """Values of `add_batch`, None if nothing adds up."""
    values: Row = dict.fromkeys(ADDED)
    for delta in (*deltas(changes, rollups), spend(changes.requests)):
        values[delta.name] = _encoded(delta) if delta.rows else None
    if any(values.values()) or changes.fresh:
        return {**values, "fresh": changes.fresh, "shard": rollups.shard}
    return None


def _encoded(delta: Delta) -> str:
    rows = [_without_zeros(delta.columns, row) for row in delta.rows]
    return encode(rows).decode()


def _without_zeros(columns: Sequence[str], row: Plain) -> Row:
    """A row of sums is mostly zeros, which cost the database as much as others. A cost
    of nothing differs from no cost."""
    named = zip(columns, row, strict=True)
    return {n: v for n, v in named if v or (n == "cost" and v is not None)}
