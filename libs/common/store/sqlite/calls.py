"""Runs named statements on SQLite."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import uuid_utils

from libs.common.contracts.events import Row
from libs.common.routing.types import Owner
from libs.common.store.admin.changes import CHANGES, entry, require_expected
from libs.common.store.interface import Actor, HistoryQuery
from libs.common.store.rows import iso
from libs.common.store.sql import Statements
from libs.common.store.sqlite.connection import transaction

SQL = Statements("sqlite")
# Statements that delete the events of old rows, by their table.
EVENTS_OF = {
    "requests": "drop_events_of_requests",
    "decisions": "drop_events_of_decisions",
}
# Columns that SQLite stores as text, and as numbers.
JSON = frozenset({
    "budget", "candidates", "changes", "event", "key_defaults", "policy", "pools",
    "prices", "targets", "team_budget", "team_policy",
})  # fmt: skip
BOOLEANS = frozenset({"degraded", "enabled", "own", "truncated"})


def fetch_rows(
    connection: sqlite3.Connection, name: str, values: Mapping[str, Any]
) -> list[Row]:
    return [_typed(dict(row)) for row in connection.execute(SQL[name], values)]


def fetch_recorded(
    connection: sqlite3.Connection, name: str, values: Mapping[str, Any], by: Actor
) -> list[Row]:
    """Run a statement of the admin API, and record what it changed."""
    change = CHANGES[name]
    with transaction(connection):
        before: list[Row] = []
        if change.reads is not None:
            before = fetch_rows(connection, change.reads, change.reading(values))
        require_expected(before, by)
        after = fetch_rows(connection, name, values)
        made = str(uuid_utils.uuid7()), datetime.now(UTC)
        recorded = entry(name, values, by, (before, after), made)
        if recorded is not None:
            connection.execute(SQL["add_audit"], recorded)
    return after


def _typed(row: Row) -> Row:
    """With JSON and booleans as Postgres returns them."""
    for name in row.keys() & JSON:
        row[name] = row[name] and json.loads(row[name])
    for name in row.keys() & BOOLEANS:
        row[name] = bool(row[name])
    return row


def put_alone(connection: sqlite3.Connection, name: str, rows: Iterable[Row]) -> int:
    with transaction(connection):
        return put(connection, name, rows)


def put(connection: sqlite3.Connection, name: str, rows: Any) -> int:
    """Run a statement for each row; return how many rows were inserted or replaced."""
    bound = [{k: _bound(v) for k, v in row.items()} for row in rows]
    cursor = connection.executemany(SQL[name], bound)
    return max(cursor.rowcount, 0)  # -1 when there were no rows


def _bound(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    return json.dumps(value) if isinstance(value, tuple) else value


def replace_prices(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    with transaction(connection):
        connection.execute(SQL["clear_prices"])
        put(connection, "put_prices", rows)


def drop_rows(connection: sqlite3.Connection, table: str, values: Row) -> int:
    """Delete a part of the old rows of a table, with their events; return how many."""
    with transaction(connection):
        dropped = 0
        if table in EVENTS_OF:
            dropped = connection.execute(SQL[EVENTS_OF[table]], values).rowcount
        return dropped + connection.execute(SQL[f"drop_{table}"], values).rowcount


def owner_of(row: Row) -> Owner:
    return Owner(row["resource_id"], row["account_id"], row["tenant"])


def history_statement(query: HistoryQuery) -> str:
    """Return the statement for the most selective filter. SQLite plans without knowing
    the values, so each filter has its own statement."""
    name = f"history_{query.table}"
    for filtered, by in FILTERS.items():
        if filtered == "unsuccessful" and query.table != "requests":
            continue
        if getattr(query, filtered) not in (None, False):
            return f"{name}_{by}"
    return name


FILTERS = {  # the most selective first
    "request_id": "by_request",
    "session_id": "by_session",
    "proxy_key_id": "by_key",
    "team_id": "by_team",
    "unsuccessful": "unsuccessful",
    "resource_id": "by_resource",
    "model": "by_model",
}
