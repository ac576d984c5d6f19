"""Why Postgres cannot be used, in one line without a secret."""

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
    """Refused data is the data's fault; anything else may pass: a full disk, a
    failover to a read-only server, a schema not migrated yet."""
    try:
        yield
    except REFUSED as error:
        raise Unstorable(f"Postgres refused the data: {error}") from error
    except PoolTimeout as error:
        raise StoreAway(f"Postgres cannot be used: {trouble() or error}") from error
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise StoreAway(f"Postgres cannot be used: {error}") from error


def cause_of(error: BaseException) -> str:
    """libpq's words on a connection name host, port, user and database. Those on a
    URL that it cannot read may quote any part of it."""
    if not isinstance(error, psycopg.OperationalError):
        return type(error).__name__
    return " ".join(str(error).split())[:400] or type(error).__name__


def telling(tell: Callable[[str], None]) -> type[AsyncConnection[DictRow]]:
    """Connections that tell why they could not be made: the pool only logs it, and
    says to those who wait that time is over."""

    class Telling(AsyncConnection[DictRow]):
        @classmethod
        def connect(cls, *args: Any, **options: Any) -> Awaitable[Any]:  # type: ignore[override]
            return _told(super().connect(*args, **options), tell)

    return Telling


async def _told(made: Awaitable[Any], tell: Callable[[str], None]) -> Any:
    try:
        connection = await made
    except psycopg.Error as error:
        tell(cause_of(error))
        raise
    tell("")
    return connection
