"""Whether a database has a schema that this version supports."""

from libs.cli.checks.finding import Finding
from libs.cli.plan import without_password
from libs.common.errors import SettingError
from libs.common.store.migrate import known_migrations


def schema_version(execute: object, tables: str, column: str) -> int:
    """The version of the schema; 0 if there is none yet."""
    assert callable(execute)
    named = f"SELECT 1 FROM {tables} WHERE {column} = 'schema_migrations'"  # noqa: S608
    if execute(named).fetchone() is None:
        return 0
    newest = execute("SELECT max(version) FROM schema_migrations").fetchone()
    return int(newest[0] or 0)


def too_new(url: str, variable: str, version: int, kind: str) -> Finding | None:
    known = len(known_migrations(kind))
    if version <= known:
        return None
    error = SettingError(
        variable,
        f"names database {without_password(url)}, whose schema has version {version}, "
        f"but this version of the proxy supports {known}",
        "Run the version that migrated it, or a newer one",
    )
    return Finding.refused(error)
