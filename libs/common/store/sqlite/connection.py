"""Opens the SQLite file, translates its errors, and runs transactions."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from libs.common.errors import StoreAway
from libs.common.store.interface import Unstorable

BUSY_MS = 5_000
BUSY_PAUSE_S = 0.01
# Pages (4 KiB) in the write-ahead log before a checkpoint: a page that many batches
# change is copied once.
CHECKPOINT_PAGES = 8_192
CACHE_KIB = 32_768  # keeps the upper pages of indexes in memory
REFUSED = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,  # a value of no storable type
    OverflowError,  # an integer beyond 64 bits
    UnicodeEncodeError,  # a lone surrogate
)


def connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # isolation_level=None: transactions are explicit.
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS:d}")
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES:d}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB:d}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Enable the write-ahead log. If several processes do so at once, SQLite reports a
    locked database immediately, regardless of `busy_timeout`, so this retries."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE_S)
        else:
            return


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except REFUSED as error:
        raise Unstorable(f"SQLite refused the data: {error}") from error
    except (sqlite3.Error, OSError) as error:
        raise StoreAway(f"SQLite cannot be used: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Run a transaction that takes the write lock first, so that its reads stay
    valid."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
