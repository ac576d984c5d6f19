"""The upper bound for ingest: the same rows written to the same empty tables, indexes
included, by a bare COPY (SQLite: executemany) in one transaction."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psycopg

TABLES = ("requests", "decisions", "minted_ids", "sessions")


def copy(source: str, target: str) -> float:
    """Seconds to COPY the rows of `source` into `target`, both Postgres."""
    with psycopg.connect(source) as connection:
        rows = {table: _copied(connection, table) for table in TABLES}
    with psycopg.connect(target) as connection:
        began = time.perf_counter()
        for table, data in rows.items():
            with connection.cursor().copy(f"COPY {table} FROM STDIN".encode()) as bare:
                bare.write(data)
        connection.commit()
        return time.perf_counter() - began


def _copied(connection: psycopg.Connection, table: str) -> bytes:
    query = f"COPY (SELECT * FROM {table}) TO STDOUT"  # noqa: S608 - a literal of ours
    with connection.cursor().copy(query.encode()) as rows:
        return b"".join(bytes(part) for part in rows)


def insert(source: Path, target: Path) -> float:
    """The same with SQLite files."""
    rows = {}
    with closing(sqlite3.connect(source)) as connection:
        for table in TABLES:
            rows[table] = connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        for table, listed in rows.items():
            places = ", ".join("?" * len(listed[0]))
            connection.executemany(
                f"INSERT INTO {table} VALUES ({places})",  # noqa: S608
                listed,
            )
        connection.execute("COMMIT")
        return time.perf_counter() - began
