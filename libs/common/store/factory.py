"""Which database a URL means."""

from pathlib import Path

from libs.common.store.interface import Store
from libs.common.store.postgres.store import PostgresStore
from libs.common.store.sqlite.store import SqliteStore

SQLITE = "sqlite:///"


def open_store(url: str) -> Store:
    """Connects on first use. `sqlite:///relative`, `sqlite:////absolute`, else
    Postgres."""
    if url.startswith(SQLITE):
        return SqliteStore(Path(url.removeprefix(SQLITE)))
    return PostgresStore(url)
