"""Translates errors of PostgreSQL, and describes them in one line without secrets."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout

from libs.common.errors import StoreAway
from libs.common.store.interface import Unstorable

REFUSED = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,  # a value too long for its index
    OverflowError,  # an integer beyond 64 bits
    UnicodeEncodeError,  # a lone surrogate
)


@contextmanager
def translated(trouble: Callable[[], str]) -> Iterator[None]:
    """Translate errors to `Unstorable` for rejected data, and to `StoreAway` for all
    else, which may be temporary: a full disk, a failover to a read-only server, a
    schema that is not migrated yet. `trouble` returns the last connection error."""
    try:
        yield
    except REFUSED as error:
        raise Unstorable(f"Postgres refused the data: {error}") from error
    except PoolTimeout as error:
        raise StoreAway(f"Postgres cannot be used: {trouble() or error}") from error
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise StoreAway(f"Postgres cannot be used: {error}") from error


def cause_of(error: BaseException) -> str:
    """Describe a connection error. libpq's messages about connections contain host,
    port, user and database; those about an invalid URL may quote any part of it."""
    if not isinstance(error, psycopg.OperationalError):
        return type(error).__name__
    return " ".join(str(error).split())[:400] or type(error).__name__


def reporting(report: Callable[[str], None]) -> type[AsyncConnection[DictRow]]:
    """Return a connection class that passes connection errors to `report`. The pool
    only logs them, and raises a timeout without the cause."""

    class Reporting(AsyncConnection[DictRow]):
        @classmethod
        def connect(cls, *args: Any, **options: Any) -> Awaitable[Any]:  # type: ignore[override]
            return _reporting(super().connect(*args, **options), report)

    return Reporting


async def _reporting(made: Awaitable[Any], report: Callable[[str], None]) -> Any:
    try:
        connection = await made
    except psycopg.Error as error:
        report(cause_of(error))
        raise
    report("")
    return connection
