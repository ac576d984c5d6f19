"""Reading from a store: pages of history, and the indexes they use. The same on SQLite
and on Postgres; the tests do not write, so the module shares its databases."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from libs.common.contracts.events import Outcome, StreamedEvent
from libs.common.store.factory import open_store
from libs.common.store.interface import Cursor, HistoryQuery, Table
from libs.common.store.postgres.day_ranges import ALL, EVER, NEVER
from libs.common.store.rows import iso_ms
from libs.common.store.sql import Statements
from libs.common.store.sqlite.calls import history_statement
from libs.common.store.store import Store
from tests.support.databases.sql import execute, is_postgres
from tests.support.databases.stores import database
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio

MANY, AT_ONCE = 1500, 500


def at(ms: int) -> str:
    """A time near those of the requests."""
    return iso_ms(T0_MS + ms)


@pytest.fixture(scope="module", params=["sqlite", "postgres", "debian_postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    named: str = request.param
    return named


@pytest.fixture(scope="module")
def few(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Seven requests, the middle ones within one millisecond; a decision each, of
    alternating sessions and resources. Each third one failed."""
    batch = []
    for n in range(7):
        given = {
            "created_at_ms": T0_MS + (0 if n in (2, 3, 4) else n - 3),
            "session_id": f"s{n % 2}",
            "resource_id": f"openai-{n % 3}",
        }
        failed = {"outcome": Outcome.FAILED, "status_code": 429, "error_code": "limit"}
        own = {"model": f"m{n % 2}", "proxy_key_id": f"k{n % 2}", "team_id": "t"}
        ended = failed if n % 3 == 1 else {"status_code": 200}
        batch.append(stored_request(f"r{n}", **given, **own, **ended))
        batch.append(streamed(decision_event(f"r{n}", **given), f"d{n}"))
    with database(kind, request, tmp_path_factory.mktemp("few")) as url:
        asyncio.run(_write(url, [batch]))
        yield url


@pytest.fixture(scope="module")
def many(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Enough rows that an index is worthwhile."""
    with database(kind, request, tmp_path_factory.mktemp("many")) as url:
        numbers = [range(n, n + AT_ONCE) for n in range(0, MANY, AT_ONCE)]
        asyncio.run(_write(url, [_batch(some) for some in numbers]))
        execute(url, "ANALYZE")
        yield url


def _batch(numbers: range) -> list[StreamedEvent]:
    """A request of each number and its decision."""
    requests = [
        stored_request(f"r{n}", session_id=f"s{n}", created_at_ms=T0_MS + n,
                       resource_id=f"openai-{n}", minted=(f"resp_{n}",),
                       model=f"m{n}", proxy_key_id=f"k{n}", team_id=f"t{n}",
                       outcome=Outcome.FAILED if n % 50 == 0 else Outcome.COMPLETED)
        for n in numbers
    ]  # fmt: skip
    decisions = [
        streamed(decision_event(f"r{n}", session_id=f"s{n}", created_at_ms=T0_MS + n,
                                resource_id=f"openai-{n}"), f"d{n}")
        for n in numbers
    ]  # fmt: skip
    return [*requests, *decisions]


async def _write(url: str, batches: Sequence[Sequence[StreamedEvent]]) -> None:
    store = open_store(url)
    await store.migrate()
    for batch in batches:
        await store.write(batch)
    await store.close()


@pytest_asyncio.fixture
async def filled(few: str) -> AsyncIterator[Store]:
    store = open_store(few)
    yield store
    await store.close()


async def ids(store: Store, query: HistoryQuery) -> list[str]:
    return [row["id"] for row in (await store.history(query)).rows]


class TestHistory:
    @pytest.mark.parametrize(
        ("table", "letter"), [("requests", "r"), ("decisions", "d")]
    )
    async def test_pages_join_without_gap_or_overlap(
        self, filled: Store, table: Table, letter: str
    ) -> None:
        seen: list[str] = []
        query = HistoryQuery(table, limit=2)
        while True:
            page = await filled.history(query)
            seen += [row["id"] for row in page.rows]
            if page.next_cursor is None:
                break
            query = HistoryQuery(table, limit=2, cursor=page.next_cursor)
        assert seen == [f"{letter}{n}" for n in (6, 5, 4, 3, 2, 1, 0)]

    async def test_pages_of_sessions(self, filled: Store) -> None:
        first = await filled.history(HistoryQuery("sessions", limit=1))
        assert [row["id"] for row in first.rows] == ["s0"]
        query = HistoryQuery("sessions", limit=1, cursor=first.next_cursor)
        second = await filled.history(query)
        assert [row["id"] for row in second.rows] == ["s1"]
        assert second.next_cursor is None

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            pytest.param(HistoryQuery("requests", request_id="r3"), "r3", id="1"),
            pytest.param(HistoryQuery("decisions", request_id="r3"), "d3", id="2"),
            pytest.param(HistoryQuery("sessions", request_id="r3"), "s1", id="3"),
            pytest.param(HistoryQuery("requests", session_id="s1"), "r5 r3 r1", id="4"),
            pytest.param(HistoryQuery("decisions", session_id="s1"), "d5 d3 d1",
                         id="5"),
            pytest.param(HistoryQuery("sessions", session_id="s1"), "s1", id="6"),
            pytest.param(HistoryQuery("requests", resource_id="openai-1"), "r4 r1",
                         id="7"),
            pytest.param(HistoryQuery("decisions", resource_id="openai-1"), "d4 d1",
                         id="8"),
            pytest.param(HistoryQuery("sessions", resource_id="openai-0"), "s0",
                         id="9"),
            pytest.param(
                HistoryQuery("requests", session_id="s1", resource_id="openai-1"),
                "r1", id="both",
            ),
            pytest.param(
                HistoryQuery("requests", request_id="r3", session_id="s0"),
                "", id="contradiction",
            ),
            pytest.param(HistoryQuery("requests", session_id="'; DROP"), "", id="text"),
            pytest.param(HistoryQuery("requests", status="429"), "r4 r1", id="status"),
            pytest.param(HistoryQuery("requests", status="4xx"), "r4 r1", id="class"),
            pytest.param(HistoryQuery("requests", status="2xx", proxy_key_id="k0"),
                         "r6 r2 r0", id="well"),
            pytest.param(HistoryQuery("requests", outcome="failed"), "r4 r1",
                         id="outcome"),
            pytest.param(HistoryQuery("requests", outcome="completed", model="m1"),
                         "r5 r3", id="model"),
            pytest.param(HistoryQuery("requests", error_code="limit", model="m1"),
                         "r1", id="error"),
            pytest.param(HistoryQuery("requests", error_code="other"), "", id="none"),
            pytest.param(HistoryQuery("requests", team_id="t", proxy_key_id="k1"),
                         "r5 r3 r1", id="tenant"),
            pytest.param(HistoryQuery("requests", team_id="t", since=at(1)),
                         "r6 r5", id="team"),
            pytest.param(HistoryQuery("requests", since=at(0), until=at(1)),
                         "r4 r3 r2", id="from is included, to is not"),
            pytest.param(HistoryQuery("requests", until=at(-2)), "r0", id="to"),
            pytest.param(HistoryQuery("decisions", since=at(2)), "d6 d5",
                         id="decisions"),
            pytest.param(HistoryQuery("decisions", reason="panic"), "", id="reason"),
            pytest.param(HistoryQuery("sessions", since=at(3)), "s0", id="sessions"),
            pytest.param(
                HistoryQuery("requests", outcome="failed", limit=1, until=at(3),
                             cursor=Cursor("2023-11-14T22:13:20.123Z", "r4").encode()),
                "r1", id="filters, times and cursor",
            ),
            pytest.param(
                HistoryQuery("requests", session_id="s1", limit=1,
                             cursor=Cursor("2023-11-14T22:13:20.123Z", "r9").encode()),
                "r3", id="filter and cursor",
            ),
        ],
    )  # fmt: skip
    async def test_filters(
        self, filled: Store, query: HistoryQuery, expected: str
    ) -> None:
        assert await ids(filled, query) == expected.split()

    @pytest.mark.parametrize("id_", ["nobody", "", "a\0b"])
    async def test_a_request_nobody_made(self, filled: Store, id_: str) -> None:
        assert await filled.request(id_) is None


class TestPlans:
    """Lookups stay fast however much is stored."""

    async def test_ids_are_found_by_the_primary_key(self, many: str) -> None:
        plan = explain(many, "owners", ids=["resp_7", "resp_8"])
        assert not re.search("(Seq Scan on|SCAN) (minted_ids|newest)", plan), plan
        assert "minted_ids_default_pkey" in plan or "PRIMARY KEY (id=?)" in plan

    async def test_a_sessions_owner_is_found_by_its_index(self, many: str) -> None:
        for session_id in ("s7", "nobody"):
            plan = explain(many, "session_owner", session_id=session_id, tenant="")
            assert not re.search("(Seq Scan on|SCAN) requests", plan), plan
            assert "session_id_created_at" in plan or "requests_by_session" in plan

    @pytest.mark.parametrize(
        ("query", "indexes"),
        [
            (HistoryQuery("requests"),
             "requests_default_created_at_id requests_recent"),
            (HistoryQuery("requests", request_id="r7"), "requests_default_pkey (id=?"),
            (HistoryQuery("requests", session_id="s7"),
             "requests_default_session_id_created_at requests_by_session"),
            (HistoryQuery("requests", resource_id="openai-7"),
             "requests_default_resource_id_created_at requests_by_resource"),
            (HistoryQuery("requests", proxy_key_id="k7"),
             "requests_default_proxy_key_id_created_at requests_by_key"),
            (HistoryQuery("requests", team_id="t7"),
             "requests_default_team_id_created_at requests_by_team"),
            (HistoryQuery("requests", model="m7"),
             "requests_default_model_created_at requests_by_model"),
            (HistoryQuery("requests", outcome="failed"),
             "requests_default_created_at_id_idx1 requests_not_completed"),
            (HistoryQuery("requests", status="5xx"),
             "requests_default_created_at_id_idx1 requests_not_completed"),
            (HistoryQuery("requests", error_code="oops"),
             "requests_default_created_at_id_idx1 requests_not_completed"),
            (HistoryQuery("decisions"),
             "decisions_default_created_at_id decisions_recent"),
            (HistoryQuery("decisions", request_id="r7"),
             "decisions_default_request_id decisions_by_request"),
            (HistoryQuery("decisions", session_id="s7"),
             "decisions_default_session_id_created_at decisions_by_session"),
            (HistoryQuery("decisions", resource_id="openai-7"),
             "decisions_default_resource_id_created_at decisions_by_resource"),
            (HistoryQuery("sessions"), "sessions_recent sessions_recent"),
            (HistoryQuery("sessions", session_id="s7"), "sessions_pkey (id=?"),
            (HistoryQuery("sessions", resource_id="openai-7"),
             "sessions_by_resource sessions_by_resource"),
            (HistoryQuery("sessions", request_id="r7"), "requests_default_pkey (id=?"),
        ],
        ids=repr,
    )  # fmt: skip
    async def test_every_page_of_history_has_its_index(
        self, many: str, query: HistoryQuery, indexes: str
    ) -> None:
        values = query.values
        of_postgres, of_sqlite = indexes.split(maxsplit=1)
        postgres = is_postgres(many)
        name = f"history_{query.table}" if postgres else history_statement(query)
        plan = explain(many, name, **values)
        assert (of_postgres if postgres else of_sqlite) in plan, plan
        assert not re.search(r"Seq Scan|SCAN \w+'|SCAN \w+$", plan), plan

    @pytest.mark.parametrize(
        ("name", "values", "indexes"),
        [
            ("request", {"id": "r7"}, "requests_default_pkey (id=?"),
            ("decisions_of_request", {"id": "r7"},
             "decisions_default_request_id decisions_by_request"),
            ("known_requests",
             {"ids": ["r7"], "oldest": EVER, "newest": NEVER},
             "requests_default_pkey (id=?"),
        ],
    )  # fmt: skip
    async def test_every_lookup_has_its_index(
        self, many: str, name: str, values: dict[str, Any], indexes: str
    ) -> None:
        plan = explain(many, name, **values)
        of_postgres, of_sqlite = indexes.split(maxsplit=1)
        assert (of_postgres if is_postgres(many) else of_sqlite) in plan, plan


def explain(url: str, name: str, **values: Any) -> str:
    """The plan of a statement, one line per step."""
    if is_postgres(url):
        with psycopg.connect(url) as connection:
            query = "EXPLAIN " + Statements("postgres")[name]
            span = {**ALL._asdict(), **values}
            steps = connection.execute(query.encode(), span).fetchall()
    else:
        bound = {k: json.dumps(v) if isinstance(v, list) else v
                 for k, v in values.items()}  # fmt: skip
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            query = "EXPLAIN QUERY PLAN " + Statements("sqlite")[name]
            steps = database.execute(query, bound).fetchall()
    return "\n".join(str(step) for step in steps)
