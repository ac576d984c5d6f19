"""Writes batches of events to PostgreSQL, in the transaction its caller has begun."""

from collections.abc import Sequence

from libs.common.contracts.events import DecisionEvent, StreamedEvent
from libs.common.store.bulk import tables
from libs.common.store.dedupe import Settled, settle
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
    settled = settle(events, {})
    await execute(connection, "lock_writers")
    for name, rows in tables(settled, FORM):
        await copy_rows(connection, name, rows)
    await _put_gains(connection, settled)
    return len(settled.events)


async def merge_batch(connection: Connection, events: Sequence[StreamedEvent]) -> int:
    """Store what is new in `events`; returns how many event rows changed."""
    await execute(connection, "lock_writers")
    settled = settle(events, await known_requests(connection, events))
    decisions = [
        decision_row(e.id, e.event)
        for e in settled.events
        if isinstance(e.event, DecisionEvent)
    ]
    changed = await put(connection, "put_events", map(event_row, settled.events))
    await put(connection, "put_decisions", decisions)
    await put(connection, "put_requests", map(request_row, settled.requests))
    await put(connection, "put_minted_ids", minted_rows(settled.requests))
    await _put_gains(connection, settled)
    return changed


async def _put_gains(connection: Connection, settled: Settled) -> None:
    await put(connection, "put_sessions", map(session_row, settled.sessions))
    await put(connection, "put_gateways", map(gateway_row, settled.gateways))
    await put(connection, "touch_proxy_keys", uses(settled.requests))
    if settled.fresh:
        await execute(connection, "add_total", {"fresh": settled.fresh})
