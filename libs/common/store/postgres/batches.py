"""Writes batches of events to PostgreSQL, in the transaction its caller has begun."""

from collections.abc import Sequence

from libs.common.contracts.events import StreamedEvent
from libs.common.store.bulk import COLUMNS, TEXT, deltas, tables
from libs.common.store.dedupe import Changes, dedupe
from libs.common.store.postgres.calls import (
    FORM,
    Connection,
    copy_rows,
    execute,
    known_requests,
    put,
    spanned,
)
from libs.common.store.rollups import Rollups


async def copy_batch(
    connection: Connection, events: Sequence[StreamedEvent], rollups: Rollups
) -> int:
    """Insert `events` by COPY; returns how many. Raises `UniqueViolation` when one of
    them is already stored."""
    changes = dedupe(events, {})
    await execute(connection, "lock_writers")
    for table, rows in tables(changes, FORM):
        await copy_rows(connection, table, rows)
    await _put_deltas(connection, changes, rollups)
    return len(changes.events)


async def merge_batch(
    connection: Connection, events: Sequence[StreamedEvent], rollups: Rollups
) -> int:
    """Store what is new in `events`; returns how many event rows changed."""
    await execute(connection, "lock_writers")
    changes = dedupe(events, await known_requests(connection, events))
    if changes.replaced:
        await execute(connection, "drop_interrupted", spanned(changes.replaced))
    changed = 0
    for table, rows in tables(changes, TEXT):
        named = (dict(zip(COLUMNS[table], row, strict=True)) for row in rows)
        added = await put(connection, f"put_{table}", named)
        changed = added if table == "events" else changed
    await _put_deltas(connection, changes, rollups)
    return changed


async def _put_deltas(
    connection: Connection, changes: Changes, rollups: Rollups
) -> None:
    for name, rows in deltas(changes, rollups):
        await put(connection, name, rows)
    if changes.fresh:
        await execute(connection, "add_total", {"fresh": changes.fresh})
