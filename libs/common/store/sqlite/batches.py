"""Writes batches of events to SQLite."""

import json
import sqlite3
from collections.abc import Iterable, Sequence

from libs.common.contracts.events import StreamedEvent
from libs.common.store.bulk import OF_EVENTS, TEXT, Plain, deltas, tables
from libs.common.store.dedupe import (
    Key,
    Stored,
    dedupe,
    request_keys,
    stored_requests,
)
from libs.common.store.rollups import Rollups
from libs.common.store.rows import iso_ms
from libs.common.store.sqlite.calls import SQL
from libs.common.store.sqlite.connection import transaction


def write_batch(
    connection: sqlite3.Connection, events: Sequence[StreamedEvent], rollups: Rollups
) -> int:
    """Store what is new in `events`; return how many events changed a row."""
    changed = 0
    with transaction(connection):
        changes = dedupe(events, _known_requests(connection, events))
        replaced = [(id_, iso_ms(ms)) for id_, ms in changes.replaced]
        connection.executemany(SQL["drop_interrupted_requests"], replaced)
        for table, rows in tables(changes, TEXT):
            added = connection.executemany(SQL[f"add_{table}"], rows).rowcount
            changed += added if table in OF_EVENTS else 0
        for delta in deltas(changes, rollups):
            connection.executemany(SQL[delta.name], delta.rows)
        connection.execute(SQL["add_total"], {"fresh": changes.fresh})
    return changed


def write_bodies(connection: sqlite3.Connection, rows: Iterable[Plain]) -> int:
    """Store captured bodies; return how many were new."""
    with transaction(connection):
        added = connection.executemany(SQL["put_payloads"], rows).rowcount
    return max(added, 0)  # -1 when there were no rows


def _known_requests(
    connection: sqlite3.Connection, events: Iterable[StreamedEvent]
) -> dict[Key, Stored]:
    ids = json.dumps([id_ for id_, _ in request_keys(events)])
    return stored_requests(connection.execute(SQL["known_requests"], {"ids": ids}))
