"""Writes batches of events to SQLite."""

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime

from libs.common.contracts.events import DecisionEvent, StreamedEvent
from libs.common.store.bulk import Form, tables
from libs.common.store.dedupe import Changes, Key, Stored, dedupe, request_keys
from libs.common.store.proxy_keys import uses
from libs.common.store.rows import (
    decision_row,
    event_row,
    gateway_row,
    iso_ms,
    milliseconds,
    minted_rows,
    request_row,
    session_row,
)
from libs.common.store.sqlite.calls import SQL, put
from libs.common.store.sqlite.connection import transaction

FORM = Form(at=iso_ms, json=bytes.decode)


def write_batch(connection: sqlite3.Connection, events: Sequence[StreamedEvent]) -> int:
    """Insert a batch as if none of it were stored, which is the usual case. After a
    primary key violation, roll back and merge it instead. Return how many events
    changed a row."""
    try:
        return _add(connection, dedupe(events, {}))
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
            raise
    return _merge(connection, events)


def _add(connection: sqlite3.Connection, changes: Changes) -> int:
    with transaction(connection):
        for name, rows in tables(changes, FORM):
            connection.executemany(SQL[name], rows)
        _put_deltas(connection, changes)
        return len(changes.events)


def _merge(connection: sqlite3.Connection, events: Sequence[StreamedEvent]) -> int:
    with transaction(connection):
        changes = dedupe(events, _known_requests(connection, events))
        decisions = [
            decision_row(e.id, e.event)
            for e in changes.events
            if isinstance(e.event, DecisionEvent)
        ]
        changed = put(connection, "put_events", map(event_row, changes.events))
        put(connection, "put_decisions", decisions)
        put(connection, "put_requests", map(request_row, changes.requests))
        put(connection, "put_minted_ids", minted_rows(changes.requests))
        _put_deltas(connection, changes)
        return changed


def _put_deltas(connection: sqlite3.Connection, changes: Changes) -> None:
    put(connection, "put_sessions", map(session_row, changes.sessions))
    put(connection, "put_gateways", map(gateway_row, changes.gateways))
    put(connection, "touch_proxy_keys", uses(changes.requests))
    connection.execute(SQL["add_total"], {"fresh": changes.fresh})


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
