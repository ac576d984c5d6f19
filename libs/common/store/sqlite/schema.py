"""Applies migrations to SQLite."""

import sqlite3
from collections.abc import Iterator

from libs.common.store.migrate import known_migrations, pending
from libs.common.store.sqlite.calls import SQL, fetch_rows
from libs.common.store.sqlite.connection import transaction

MIGRATIONS = known_migrations("sqlite")


def migrate(connection: sqlite3.Connection) -> int:
    with transaction(connection):
        connection.execute(SQL["create_migrations"])
        for migration in pending(MIGRATIONS, schema_version(connection)):
            for statement in _statements(migration.script):
                connection.execute(statement)
            values = {"version": migration.version, "name": migration.name}
            connection.execute(SQL["record_migration"], values)
        return schema_version(connection)


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements: executescript would commit first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def schema_version(connection: sqlite3.Connection) -> int:
    connection.execute(SQL["create_migrations"])
    return int(fetch_rows(connection, "schema_version", {})[0]["version"])
