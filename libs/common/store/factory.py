"""Opens the store for a database URL."""

from pathlib import Path

from libs.common.store.sqlite.store import SqliteStore
from libs.common.store.store import Store

SQLITE = "sqlite:///"


def missing_file(url: str) -> Path | None:
    """Return the path of an SQLite file that does not exist."""
    path = Path(url.removeprefix(SQLITE))
    return path if url.startswith(SQLITE) and not path.exists() else None


def open_store(url: str) -> Store:
    """Return the store for a URL: `sqlite:///relative`, `sqlite:////absolute`, or
    PostgreSQL. It connects on first use."""
    if url.startswith(SQLITE):
        return SqliteStore(Path(url.removeprefix(SQLITE)))
    # psycopg takes 0.1 s of a start and 10 MB.
    from libs.common.store.postgres.store import PostgresStore  # noqa: PLC0415

    return PostgresStore(url)
