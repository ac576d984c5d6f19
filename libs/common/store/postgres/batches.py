"""Writes batches of events to PostgreSQL, in the transaction its caller has begun."""

from collections.abc import Sequence

from libs.common.contracts.events import DecisionEvent, StreamedEvent
from libs.common.store.bulk import tables
from libs.common.store.dedupe import Changes, dedupe
from libs.common.store.postgres.calls import (
    FORM,
    Connection,
    copy_rows,
    execute,
    known_requests,
    put,
)
from libs.common.store.proxy_keys import uses
from libs.common.store.rows import (
    decision_row,
    event_row,
    gateway_row,
    minted_rows,
    request_row,
    session_row,
)


async def copy_batch(connection: Connection, events: Sequence[StreamedEvent]) -> int:
    """Insert `events` by COPY; returns how many. Raises `UniqueViolation` when one of
    them is already stored."""
    changes = dedupe(events, {})
    await execute(connection, "lock_writers")
    for name, rows in tables(changes, FORM):
        await copy_rows(connection, name, rows)
    await _put_deltas(connection, changes)
    return len(changes.events)


async def merge_batch(connection: Connection, events: Sequence[StreamedEvent]) -> int:
    """Store what is new in `events`; returns how many event rows changed."""
    await execute(connection, "lock_writers")
    changes = dedupe(events, await known_requests(connection, events))
    decisions = [
        decision_row(e.id, e.event)
        for e in changes.events
        if isinstance(e.event, DecisionEvent)
    ]
    changed = await put(connection, "put_events", map(event_row, changes.events))
    await put(connection, "put_decisions", decisions)
    await put(connection, "put_requests", map(request_row, changes.requests))
    await put(connection, "put_minted_ids", minted_rows(changes.requests))
    await _put_deltas(connection, changes)
    return changed


async def _put_deltas(connection: Connection, changes: Changes) -> None:
    await put(connection, "put_sessions", map(session_row, changes.sessions))
    await put(connection, "put_gateways", map(gateway_row, changes.gateways))
    await put(connection, "touch_proxy_keys", uses(changes.requests))
    if changes.fresh:
        await execute(connection, "add_total", {"fresh": changes.fresh})
