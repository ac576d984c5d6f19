"""A database that rejects writes: nothing is acknowledged, and everything is stored
once the database works again."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from libs.common.contracts.events import encode
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.store.factory import open_store
from libs.common.store.postgres import store as postgres
from libs.common.store.postgres.store import PostgresStore
from libs.common.store.sqlite.store import SqliteStore
from services.ingest.backoff import Backoff
from services.ingest.batch import BatchRule
from services.ingest.consumer import Consumer, ConsumerOptions
from tests.support.databases.sql import execute, fetch
from tests.support.processes.waiting import eventually
from tests.support.values.consuming import running
from tests.support.values.telemetry import request_event

pytestmark = pytest.mark.asyncio

STREAM, GROUP = "telemetry:events", "workers"
DISK_FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left' USING ERRCODE = '53100';
END $$;
CREATE TRIGGER full_disk BEFORE UPDATE ON totals EXECUTE FUNCTION full_disk();
"""


@pytest.fixture
def stream(redis: Redis) -> TelemetryStream:
    return TelemetryStream(redis, STREAM, GROUP)


def consumer(stream: TelemetryStream, store: PostgresStore | SqliteStore) -> Consumer:
    backoff = Backoff(0.01, 0.05)
    return Consumer(
        stream, store, ConsumerOptions("one", BatchRule(500, 0.01), 30, backoff)
    )


async def kept_until(
    stream: TelemetryStream,
    store: PostgresStore | SqliteStore,
    url: str,
    says: str,
    mend: Callable[[], None],
) -> None:
    """Nothing is acknowledged while the database is broken; everything is stored
    afterwards."""
    event = request_event("a", session_id="s", error_message="needs pages" * 700)
    await stream.append("request", "a", encode(event))
    working = consumer(stream, store)
    async with running(working):

        async def noticed() -> bool:
            return says in working.away.get("store", "")

        await eventually(noticed)
        assert await stream.depth() == 1
        assert fetch(url, "SELECT count(*) FROM requests") == [(0,)]
        assert fetch(url, "SELECT count(*) FROM dead_letters") == [(0,)]
        mend()

        async def stored() -> bool:
            return await stream.depth() == 0

        await eventually(stored)
    assert fetch(url, "SELECT id FROM requests") == [("a",)]
    await store.close()


class TestPostgres:
    @pytest_asyncio.fixture
    async def store(self, postgres_url: str) -> PostgresStore:
        opened = PostgresStore(postgres_url)
        await opened.migrate()
        await opened.close()
        return PostgresStore(postgres_url)

    async def test_read_only(
        self, stream: TelemetryStream, store: PostgresStore, postgres_url: str
    ) -> None:
        name = postgres_url.rpartition("/")[2]
        setting = f"ALTER DATABASE {name} SET default_transaction_read_only ="
        execute(postgres_url, f"{setting} on")

        def mend() -> None:
            execute(
                f"{postgres_url}?options=-c%20default_transaction_read_only%3Doff",
                f"{setting} off;"
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )

        await kept_until(stream, store, postgres_url, "read-only transaction", mend)

    async def test_full(
        self, stream: TelemetryStream, store: PostgresStore, postgres_url: str
    ) -> None:
        execute(postgres_url, DISK_FULL)

        def mend() -> None:
            execute(postgres_url, "DROP TRIGGER full_disk ON totals")

        await kept_until(stream, store, postgres_url, "No space left", mend)

    async def test_slow(
        self,
        stream: TelemetryStream,
        store: PostgresStore,
        postgres_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(postgres, "STATEMENT_S", 1)
        execute(
            postgres_url,
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM pg_sleep(30); RETURN NULL; END $$; "
            "CREATE TRIGGER slow BEFORE UPDATE ON totals EXECUTE FUNCTION slow()",
        )

        def mend() -> None:
            execute(postgres_url, "DROP TRIGGER slow ON totals")

        await kept_until(stream, store, postgres_url, "statement timeout", mend)

    async def test_missing(
        self, stream: TelemetryStream, store: PostgresStore, postgres_url: str
    ) -> None:
        server, _, name = postgres_url.rpartition("/")
        admin = f"{server}/postgres"
        with psycopg.connect(admin, autocommit=True) as database:
            database.execute(f"ALTER DATABASE {name} RENAME TO {name}_gone".encode())
        event = encode(request_event("a"))
        await stream.append("request", "a", event)
        working = consumer(stream, store)

        async def noticed() -> bool:
            return "store" in working.away

        async def stored() -> bool:
            return await stream.depth() == 0

        async with running(working):
            await eventually(noticed)
            assert await stream.depth() == 1
            with psycopg.connect(admin, autocommit=True) as database:
                back = f"ALTER DATABASE {name}_gone RENAME TO {name}"
                database.execute(back.encode())
            await eventually(stored)
        assert fetch(postgres_url, "SELECT id FROM requests") == [("a",)]
        await store.close()


class TestSqlite:
    @pytest.mark.parametrize(
        ("pragma", "says"),
        [
            pytest.param("query_only = ON", "readonly database", id="read-only"),
            pytest.param("max_page_count = 1", "disk is full", id="full"),
        ],
    )
    async def test_read_only_or_full(
        self, stream: TelemetryStream, tmp_path: Path, pragma: str, says: str
    ) -> None:
        path = tmp_path / "proxy.sqlite3"
        store = SqliteStore(path)
        await store.migrate()
        await store._run(lambda c: c.execute(f"PRAGMA {pragma}").fetchall())

        def mend() -> None:
            mended = "query_only = OFF" if "only" in pragma else "max_page_count = 9999"
            store._thread.submit(
                lambda: store._connection and store._connection.execute(
                    f"PRAGMA {mended}"
                )
            ).result()  # fmt: skip

        await kept_until(stream, store, f"sqlite:///{path}", says, mend)

    async def test_slow_as_another_process_holds_it(
        self, stream: TelemetryStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.common.store.sqlite.connection.BUSY_MS", 100)
        path = tmp_path / "proxy.sqlite3"
        store, other = SqliteStore(path), SqliteStore(path)
        await store.migrate()
        await other._run(lambda c: c.execute("BEGIN IMMEDIATE").fetchall())

        def mend() -> None:
            other._thread.submit(
                lambda: other._connection and other._connection.execute("ROLLBACK")
            ).result()

        await kept_until(stream, store, f"sqlite:///{path}", "locked", mend)
        await other.close()


async def test_a_clock_that_went_back_costs_nothing(
    stream: TelemetryStream, postgres_url: str
) -> None:
    """Later events with earlier times, and a request that ended before it began."""
    store = open_store(postgres_url)
    await store.migrate()
    assert isinstance(store, PostgresStore)
    times = {"now": 1_800_000_000_000, "yesterday": 1_799_913_600_000, "epoch": 0}
    for id_, at_ms in times.items():
        event = request_event(
            id_, session_id="s", created_at_ms=at_ms, completed_at_ms=max(0, at_ms - 9)
        )
        await stream.append("request", id_, encode(event))
    async with running(consumer(stream, store)):

        async def stored() -> bool:
            return await stream.depth() == 0

        await eventually(stored)
    assert fetch(postgres_url, "SELECT id FROM requests ORDER BY created_at") == [
        ("epoch",), ("yesterday",), ("now",),
    ]  # fmt: skip
    ((first, last),) = fetch(
        postgres_url, "SELECT first_seen_at, last_seen_at FROM sessions"
    )
    assert (first.year, last.year) == (1970, 2027)
    await store.close()
