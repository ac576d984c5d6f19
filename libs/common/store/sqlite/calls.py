"""Runs named statements on SQLite."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from libs.common.contracts.events import Row
from libs.common.routing.types import Owner
from libs.common.store.interface import HistoryQuery
from libs.common.store.rows import iso
from libs.common.store.sql import Statements
from libs.common.store.sqlite.connection import transaction

SQL = Statements("sqlite")


def fetch_rows(
    connection: sqlite3.Connection, name: str, values: Mapping[str, Any]
) -> list[Row]:
    return [_typed(dict(row)) for row in connection.execute(SQL[name], values)]


def _typed(row: Row) -> Row:
    """Convert JSON and booleans, which SQLite stores as text and numbers."""
    if "candidates" in row:
        row["candidates"] = json.loads(row["candidates"])
        row["degraded"] = bool(row["degraded"])
    if "truncated" in row:
        row["truncated"] = bool(row["truncated"])
    return row


def put_alone(connection: sqlite3.Connection, name: str, rows: Sequence[Row]) -> int:
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
    with transaction(connection):
        return connection.execute(SQL[f"drop_{table}"], values).rowcount


def request_with_decisions(connection: sqlite3.Connection, id_: str) -> Row | None:
    rows = fetch_rows(connection, "request", {"id": id_})
    if not rows:
        return None
    decisions = fetch_rows(connection, "decisions_of_request", {"id": id_})
    return {**rows[0], "decisions": decisions}


def owner_of(row: Row) -> Owner:
    return Owner(row["resource_id"], row["account_id"], row["tenant"])


def history_statement(query: HistoryQuery) -> str:
    """Return the statement for the most selective filter. SQLite plans without knowing
    the values, so each filter has its own statement."""
    for name in ("request", "session", "resource"):
        if getattr(query, f"{name}_id") is not None:
            return f"history_{query.table}_by_{name}"
    return f"history_{query.table}"
