"""Differences between the two databases, and either of them unreachable."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from datetime import date
from pathlib import Path

import psycopg
import pytest

from libs.common.errors import StoreAway
from libs.common.routing.types import Owner
from libs.common.store.factory import open_store
from libs.common.store.interface import HistoryQuery
from libs.common.store.postgres.day_ranges import ALL
from libs.common.store.sql import Statements
from tests.support.databases.sql import execute, fetch, table_rows
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    health_event,
    registry_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio

BATCH = (
    streamed(decision_event(session_id="s")),
    stored_request(session_id="s", session_name="work", total_tokens=7,
                   resource_id="openai-1", minted=("resp_1", "msg_1", "resp_1")),
    streamed(health_event()),
    streamed(registry_event()),
)  # fmt: skip


class TestAway:
    @pytest.mark.parametrize("make", ["postgres", "sqlite"])
    async def test_a_database_that_cannot_be_reached(
        self, make: str, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("not a folder")
        nowhere = {
            "postgres": f"postgresql://nobody@127.0.0.1:{free_port()}/none",
            "sqlite": f"sqlite:///{tmp_path}/file/proxy.sqlite3",
        }[make]
        store = open_store(nowhere)
        calls = (store.ping(), store.migrate(), store.write(BATCH),
                 store.owners(["resp_1"]), store.session_owner("s"))  # fmt: skip
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreAway] * 5
        await store.close()

    async def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        path = tmp_path / "proxy.sqlite3"
        path.write_text("nonsense" * 1000)
        store = open_store(f"sqlite:///{path}")
        with pytest.raises(StoreAway):
            await store.ping()
        await store.close()

    async def test_a_broken_connection_is_replaced(self, postgres_url: str) -> None:
        others = (
            "FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

        async def gone() -> bool:
            return fetch(postgres_url, f"SELECT count(*) {others}") == [(0,)]

        async with open_store(postgres_url) as store:
            await store.ping()
            execute(postgres_url, f"SELECT pg_terminate_backend(pid) {others}")
            await eventually(gone)  # it only sends a signal
            await store.ping()


class TestPostgresOnly:
    async def test_rows_move_from_the_default_partition(
        self, postgres_url: str
    ) -> None:
        store = open_store(postgres_url)
        await store.migrate()
        await store.write([stored_request(resource_id="one", minted=("resp_1",))])
        kept = (
            "SELECT (SELECT count(*) FROM requests_default)"
            " + (SELECT count(*) FROM minted_ids_default)"
        )
        assert fetch(postgres_url, kept) == [(2,)]
        assert await store.make_partitions(date(2023, 11, 14)) == 9 * 5
        assert await store.make_partitions(date(2023, 11, 15)) == 5
        assert fetch(postgres_url, kept) == [(0,)]
        assert fetch(postgres_url, "SELECT id FROM requests_20231114") == [("req-1",)]
        assert fetch(postgres_url, "SELECT id FROM minted_ids_20231114") == [
            ("resp_1",)
        ]
        assert await store.owners(["resp_1"]) == {"resp_1": Owner("one", "one")}
        assert await store.write([stored_request()]) == 0
        await store.close()

    async def test_a_day_is_utc_whatever_the_session_thinks(
        self, postgres_url: str
    ) -> None:
        store = open_store(f"{postgres_url}?options=-c%20timezone%3DAsia/Tokyo")
        await store.migrate()
        await store.make_partitions(date(2023, 11, 14))
        await store.write([stored_request()])
        assert fetch(postgres_url, "SELECT id FROM requests_20231114") == [("req-1",)]
        row = await store.request("req-1")
        assert row is not None
        assert row["created_at"] == "2023-11-14T22:13:20.123Z"
        await store.close()

    async def test_history_by_session_uses_its_index(self, postgres_url: str) -> None:
        store = open_store(postgres_url)
        await store.migrate()
        for start in range(0, 3000, 500):
            await store.write(
                [stored_request(f"r{n}", session_id=f"s{n}", created_at_ms=T0_MS + n)
                 for n in range(start, start + 500)]
            )  # fmt: skip
        await store.close()
        with psycopg.connect(postgres_url) as connection:
            connection.execute("ANALYZE requests")
            plan = connection.execute(
                "EXPLAIN " + Statements("postgres")["history_requests"],
                {**HistoryQuery("requests", session_id="s7").values, **ALL._asdict()},
            ).fetchall()
        assert "session_id_created_at" in str(plan)

    async def test_the_urls_options_pass_through(
        self, postgres_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = open_store(f"{postgres_url}?sslmode=require")
        with pytest.raises(StoreAway):
            await store.ping()
        await store.close()
        assert "server does not support SSL, but SSL was required" in caplog.text


class TestSqliteOnly:
    async def test_old_rows_go_in_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.common.store.sqlite.store.DROPPED_ROWS", 2)
        url = f"sqlite:///{tmp_path}/proxy.sqlite3"
        store = open_store(url)
        await store.migrate()
        old = [stored_request(f"r{n}", resource_id="one", minted=(f"resp_{n}",))
               for n in range(5)]  # fmt: skip
        await store.write([*old, streamed(decision_event("r1"))])
        at = "2023-11-14T22:13:20.123Z"  # of both
        with closing(sqlite3.connect(tmp_path / "proxy.sqlite3")) as database, database:
            database.executemany(  # as older versions stored them
                "INSERT INTO events VALUES (?, ?, ?, '{}')",
                [("r1", "request", at), ("decision-1", "decision", at)],
            )
        # Requests, their ids, a decision, and both events.
        assert await store.drop_before(date(2023, 11, 15)) == 2 * 5 + 1 + 2
        for table in ("requests", "decisions", "events", "minted_ids"):
            assert table_rows(url, table) == []
        await store.close()

    @pytest.mark.parametrize(
        ("name", "indexes"),
        [
            ("drop_events", ("events_of_health", "events_of_others")),
            ("drop_events_of_requests", ("requests_recent", "autoindex_events_1")),
            ("drop_events_of_decisions", ("decisions_recent", "autoindex_events_1")),
            ("health_changes", ("events_of_health",)),
        ],
    )
    async def test_no_event_is_found_by_reading_all(
        self, tmp_path: Path, name: str, indexes: tuple[str, ...]
    ) -> None:
        path = tmp_path / "proxy.sqlite3"
        async with open_store(f"sqlite:///{path}") as store:
            await store.migrate()
        values = {"before": "2026", "most": 5, "since": "2026"}
        with closing(sqlite3.connect(path)) as database:
            query = "EXPLAIN QUERY PLAN " + Statements("sqlite")[name]
            plan = str(database.execute(query, values).fetchall())
        assert "SCAN events" not in plan
        assert all(index in plan for index in indexes), plan

    async def test_a_reader_does_not_wait_for_the_writer(self, tmp_path: Path) -> None:
        path = tmp_path / "proxy.sqlite3"
        store = open_store(f"sqlite:///{path}")
        await store.migrate()
        await store.write(BATCH)
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM requests")
            assert await store.request("req-1") is not None
            writer.execute("ROLLBACK")
        await store.close()

    async def test_its_thread_ends_with_it(self, tmp_path: Path) -> None:
        store = open_store(f"sqlite:///{tmp_path}/proxy.sqlite3")
        await store.ping()
        await store.close()
        names = [t.name for t in threading.enumerate() if t.name.startswith("sqlite")]
        assert len(names) <= 1  # it may still be ending
