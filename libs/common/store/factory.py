"""Opens the store for a database URL."""

from pathlib import Path

from libs.common.store.interface import Store
from libs.common.store.postgres.store import PostgresStore
from libs.common.store.sqlite.store import SqliteStore

SQLITE = "sqlite:///"


def open_store(url: str) -> Store:
    """Return the store for a URL: `sqlite:///relative`, `sqlite:////absolute`, or
    PostgreSQL. It connects on first use."""
    if url.startswith(SQLITE):
        return SqliteStore(Path(url.removeprefix(SQLITE)))
    return PostgresStore(url)
