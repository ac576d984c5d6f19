"""Queries either database from outside, as an operator would."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg


def setting(url: str) -> dict[str, str]:
    """The environment variable that selects this database."""
    name = "PROXY_DATABASE_URL" if is_postgres(url) else "PROXY_SQLITE_URL"
    return {name: url}


def is_postgres(url: str) -> bool:
    return url.startswith("postgres")


def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    """All rows of a query that both databases understand."""
    if is_postgres(url):
        with psycopg.connect(url) as connection:
            return connection.execute(query.encode()).fetchall()
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def execute(url: str, statement: str) -> None:
    """Execute and commit one statement."""
    if is_postgres(url):
        with psycopg.connect(url) as connection:
            connection.execute(statement.encode())
        return
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


def table_rows(url: str, table: str) -> list[tuple[Any, ...]]:
    """All rows of a table, ordered."""
    return fetch(url, f"SELECT * FROM {table} ORDER BY 1, 2")


def columns(url: str, table: str) -> list[str]:
    """A table's columns in order."""
    if is_postgres(url):
        with psycopg.connect(url) as connection:
            listed = connection.execute(
                "SELECT column_name FROM information_schema.columns "
                "WHERE table_name = %s ORDER BY ordinal_position",
                [table],
            ).fetchall()
        return [name for (name,) in listed]
    return [row[1] for row in fetch(url, f"PRAGMA table_info({table})")]
