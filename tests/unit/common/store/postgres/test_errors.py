"""Why Postgres cannot be used, in one line without a secret. A real server that
refuses is in tests/integration/store/test_store_databases.py."""

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg_pool import PoolTimeout

from libs.common.errors import StoreAway
from libs.common.store.interface import Unstorable
from libs.common.store.postgres.errors import cause_of, reporting, translated


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (psycopg.OperationalError("server\n  is starting up"), "server is starting up"),
        (psycopg.OperationalError(""), "OperationalError"),
        (psycopg.ProgrammingError('missing "=" after "hush"'), "ProgrammingError"),
        (ValueError("hush"), "ValueError"),
        (psycopg.OperationalError("x" * 1000), "x" * 400),
    ],
)
def test_a_cause(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


@pytest.mark.asyncio
async def test_a_connection_tells_why_it_could_not_be_made() -> None:
    told: list[str] = []
    with pytest.raises(psycopg.Error):
        await reporting(told.append).connect("host=/nowhere dbname=d")
    assert len(told) == 1
    assert "/nowhere" in told[0]


@pytest.mark.asyncio
async def test_a_connection_that_was_made_clears_what_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = object()

    async def connect(*_: object, **__: object) -> object:
        return made

    monkeypatch.setattr(AsyncConnection, "connect", connect)
    told: list[str] = []
    assert await reporting(told.append).connect("dbname=d") is made
    assert told == [""]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.NotNullViolation("method"), Unstorable),
        (psycopg.DataError("out of range"), Unstorable),
        (psycopg.errors.ProgramLimitExceeded("index row"), Unstorable),
        (OverflowError("int too big"), Unstorable),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), Unstorable),
        (psycopg.OperationalError("the server is gone"), StoreAway),
        (psycopg.errors.DiskFull("no space"), StoreAway),
        (psycopg.errors.ReadOnlySqlTransaction("read-only"), StoreAway),
        (psycopg.errors.UndefinedTable("no table"), StoreAway),
        (TimeoutError(), StoreAway),
        (OSError("no route"), StoreAway),
    ],
)
def test_a_refused_value_is_told_from_an_unavailable_server(
    error: Exception, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="Postgres"), translated(str):
        raise error


def test_a_pool_timeout_gives_the_last_cause() -> None:
    with pytest.raises(StoreAway, match="no route"), translated(lambda: "no route"):
        raise PoolTimeout("3.00 sec")


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), translated(str):
        raise ZeroDivisionError
