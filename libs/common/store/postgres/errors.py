"""Why Postgres cannot be used, in one line without a secret."""

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow


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
