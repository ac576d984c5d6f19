"""The store's promises, the same on SQLite and on Postgres."""

import asyncio
import json
import re
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from libs.common.asks import Owner
from libs.common.contracts import (
    BodyNote,
    Outcome,
    PayloadEvent,
    RequestEvent,
    StreamedEvent,
    StreamedPayload,
)
from libs.common.errors import StoreAway
from libs.common.store import postgres, sqlite
from libs.common.store.migrate import known_migrations
from libs.common.store.opening import open_store
from libs.common.store.port import (
    Cursor,
    DeadLetter,
    HistoryQuery,
    SchemaTooNew,
    Store,
    Table,
    Unstorable,
)
from libs.common.store.rows import milliseconds
from libs.common.store.spans import ALL, EVER, NEVER
from libs.common.store.sqlite import history_statement
from libs.common.store.statements import Statements
from tests.support.ports import free_port
from tests.support.sql import columns, execute, fetch, is_postgres, table_rows
from tests.support.telemetry import (
    T0_MS,
    decision_event,
    gateway_event,
    health_event,
    registry_event,
    request_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio

# design.md, section 5: people write queries on these names.
COLUMNS = {
    "requests": "id created_at completed_at session_id session_name pool_id "
    "resource_id account_id proxy_key_id method path model upstream_model transport "
    "status_code outcome error_code error_message attempts latency_ms upstream_ms "
    "first_token_ms overhead_ms input_tokens cached_tokens output_tokens "
    "reasoning_tokens total_tokens usage_state request_bytes response_bytes "
    "service_tier response_id previous_response_id gateway_id",
    "decisions": "id request_id attempt created_at session_id pool_id resource_id "
    "reason candidates degraded cause",
    "sessions": "id name first_seen_at last_seen_at requests total_tokens "
    "last_resource_id",
    "minted_ids": "id created_at request_id resource_id account_id",
    "gateways": "id started_at last_seen_at accepted ended held state stored",
    "payloads": "request_id created_at direction content_type encoding "
    "original_bytes truncated body dropped",
}


NEWEST = len(known_migrations("sqlite"))  # schema


@pytest.fixture(params=["sqlite", "postgres", "postgres_15"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/deep/proxy.sqlite3"
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest_asyncio.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = open_store(url)
    await opened.migrate()
    yield opened
    await opened.close()


async def migrate_to(version: int, url: str, patch: pytest.MonkeyPatch) -> None:
    """Make a database as an earlier version of us left it."""
    with patch.context() as earlier:
        earlier.setattr(postgres, "MIGRATIONS", postgres.MIGRATIONS[:version])
        earlier.setattr(sqlite, "MIGRATIONS", sqlite.MIGRATIONS[:version])
        store = open_store(url)
        await store.migrate()
        await store.close()


def snapshot(url: str) -> list[object]:
    """Everything that is stored."""
    tables = (
        "sessions", "requests", "decisions", "events", "minted_ids", "totals",
        "gateways",
    )  # fmt: skip
    return [table_rows(url, table) for table in tables]


def session_rows(url: str) -> list[tuple[object, ...]]:
    return fetch(
        url,
        "SELECT id, name, requests, total_tokens, last_resource_id "
        "FROM sessions ORDER BY id",
    )


BATCH = (
    streamed(decision_event(session_id="s", cause="cooling_down")),
    stored_request(session_id="s", session_name="work", total_tokens=7,
                   resource_id="openai-1", minted=("resp_1", "msg_1", "resp_1")),
    streamed(health_event()),
    streamed(registry_event()),
)  # fmt: skip


class TestSchema:
    async def test_columns_are_the_documented_ones(
        self, url: str, store: Store
    ) -> None:
        assert await store.schema_version() == NEWEST
        for table, names in COLUMNS.items():
            assert columns(url, table) == names.split()

    async def test_every_table_is_there(self, url: str, store: Store) -> None:
        for table in ("events", "payloads", "providers", "models", "proxy_keys"):
            assert table_rows(url, table) == []
            assert "created_at" in columns(url, table)

    async def test_migrating_again_changes_nothing(
        self, url: str, store: Store
    ) -> None:
        await store.write(BATCH)
        before = snapshot(url)
        assert await store.migrate() == NEWEST
        assert snapshot(url) == before

    async def test_several_processes_migrate_at_once(self, url: str) -> None:
        stores = [open_store(url) for _ in range(4)]
        versions = await asyncio.gather(*(each.migrate() for each in stores))
        assert versions == [NEWEST] * 4
        applied = fetch(url, "SELECT version FROM schema_migrations ORDER BY 1")
        assert applied == [(n,) for n in range(1, NEWEST + 1)]
        for each in stores:
            await each.close()

    async def test_decisions_of_before_have_no_cause(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await migrate_to(6, url, monkeypatch)
        old = "'{}', 'r', {}, '2023-11-14 22:13:20Z', 'one', 'panic', '[]', {}"
        for attempt in (1, 2):
            degraded = "false" if is_postgres(url) else "0"
            execute(
                url,
                "INSERT INTO decisions (id, request_id, attempt, created_at, "
                "resource_id, reason, candidates, degraded) "
                f"VALUES ({old.format(attempt, attempt, degraded)})",
            )
        store = open_store(url)
        await store.migrate()
        await store.write([streamed(decision_event("s", cause="timeout"), "3")])
        (page,) = [(await store.history(HistoryQuery("decisions"))).rows]
        assert sorted((row["id"], row["cause"]) for row in page) == [
            ("1", None), ("2", None), ("3", "timeout"),
        ]  # fmt: skip
        moved = fetch(url, "SELECT cause, times, rate FROM failovers_by_cause")
        assert sorted(moved, key=str) == [("timeout", 1, None), (None, 1, None)]
        await store.close()

    async def test_a_newer_schema_is_refused(self, url: str, store: Store) -> None:
        execute(
            url, "INSERT INTO schema_migrations (version, name) VALUES (99, '0099_x')"
        )
        with pytest.raises(SchemaTooNew, match="has schema 99"):
            await store.migrate()

    async def test_before_the_first_migration(self, url: str) -> None:
        unready = open_store(url)
        assert await unready.schema_version() == 0
        with pytest.raises(StoreAway):
            await unready.write(BATCH)
        with pytest.raises(StoreAway):
            await unready.counts()
        await unready.close()

    async def test_views_answer(self, url: str, store: Store) -> None:
        await store.write(
            [
                stored_request("a", session_id="s", model="m", resource_id="one",
                               attempts=2, latency_ms=30, input_tokens=10,
                               cached_tokens=4, output_tokens=5, total_tokens=15),
                stored_request("b", session_id="s", model="m", resource_id="one",
                               latency_ms=90.5, input_tokens=10, output_tokens=5,
                               reasoning_tokens=2, total_tokens=15),
            ]
        )  # fmt: skip
        ((day, *tokens),) = fetch(url, "SELECT * FROM tokens_by_day")
        assert (str(day), tokens) == (
            "2023-11-14", ["m", "one", 2, 20, 4, 10, 2, 30],
        )  # fmt: skip
        ((day, *rate),) = fetch(url, "SELECT * FROM failover_rate")
        assert (str(day), rate) == ("2023-11-14", [2, 1, 0.5])
        assert fetch(url, "SELECT * FROM cache_hits_by_session") == [
            ("s", 2, 20, 4, 0.2)
        ]
        slowest = fetch(url, "SELECT id, latency_ms FROM slowest_requests")
        assert slowest == [("b", 90.5), ("a", 30.0)]


class TestWriting:
    async def test_a_batch_is_stored_as_it_came(self, store: Store) -> None:
        assert await store.write(BATCH) == 4
        row = await store.request("req-1")
        assert row is not None
        (decision,) = row.pop("decisions")
        expected = request_event(
            session_id="s", session_name="work", total_tokens=7, resource_id="openai-1"
        ).model_dump()
        expected.pop("minted")
        expected.pop("created_at_ms")
        expected.pop("completed_at_ms")
        assert row == {
            **expected,
            "created_at": "2023-11-14T22:13:20.123Z",
            "completed_at": "2023-11-14T22:13:21.023Z",
        }
        assert decision["degraded"] is False
        assert decision["cause"] == "cooling_down"
        assert decision["candidates"] == [
            c.model_dump() for c in decision_event().candidates
        ]

    async def test_a_replay_changes_nothing(self, url: str, store: Store) -> None:
        await store.write(BATCH)
        before = snapshot(url)
        assert await store.write(BATCH) == 0
        assert await store.write(BATCH * 2) == 0
        assert await store.write(tuple(reversed(BATCH))) == 0
        assert snapshot(url) == before

    async def test_of_a_batch_that_is_stored_in_part_the_rest_is_new(
        self, url: str, store: Store
    ) -> None:
        conversation = {"resource_id": "one", "minted": ("conv_1",), "session_id": "s"}
        first = stored_request("a", **conversation)
        # The same id, told by another request of the same millisecond.
        second = stored_request("b", **conversation, total_tokens=5)
        assert await store.write([first]) == 1
        assert await store.write([first, second, streamed(decision_event("b"))]) == 2
        assert fetch(url, "SELECT id FROM requests ORDER BY 1") == [("a",), ("b",)]
        assert fetch(url, "SELECT request_id FROM minted_ids") == [("a",)]
        assert session_rows(url) == [("s", None, 2, 5, "one")]
        assert (await store.counts()).requests == 2

    async def test_text_of_any_kind_comes_back_as_it_was(self, store: Store) -> None:
        odd = 'tab\t, line\n, back\\slash, "quotes", {braces}, \\N, \u2028 and 🦜'
        await store.write([stored_request("a", error_message=odd, session_name=odd)])
        row = await store.request("a")
        assert row is not None
        assert (row["error_message"], row["session_name"]) == (odd, odd)

    async def test_nothing_is_stored_of_no_events(self, store: Store) -> None:
        assert await store.write([]) == 0

    async def test_writers_with_the_same_batch_store_it_once(
        self, url: str, store: Store
    ) -> None:
        other = open_store(url)
        batch = [stored_request(f"r{n}", session_id=f"s{n % 5}") for n in range(200)]
        backwards = list(reversed(batch))
        written = await asyncio.gather(
            *(s.write(b) for s in (store, other) for b in (batch, backwards))
        )
        assert sum(written) == 200
        assert [row[2] for row in session_rows(url)] == [40] * 5
        assert (await other.counts()).requests == 200
        await other.close()

    async def test_all_or_nothing(self, url: str, store: Store) -> None:
        before = snapshot(url)
        bad = streamed(RequestEvent.model_construct(
            **{**dict(request_event("bad")), "method": None}
        ), "bad")  # fmt: skip
        with pytest.raises(Unstorable, match="method"):
            await store.write([*BATCH, bad])
        assert snapshot(url) == before

    @pytest.mark.parametrize(
        "bad",
        [
            pytest.param({"input_tokens": 2**70}, id="beyond bigint"),
            pytest.param({"model": "\ud800"}, id="lone surrogate"),
        ],
    )
    async def test_data_that_fits_nowhere_is_refused(
        self, store: Store, bad: dict[str, object]
    ) -> None:
        event = RequestEvent.model_construct(**{**dict(request_event()), **bad})
        poisoned = StreamedEvent(
            entry_id="1-0", id="req-1", kind="request", event=event
        )
        with pytest.raises((Unstorable, ValueError)):
            await store.write([poisoned])


class TestInterrupted:
    LOST = stored_request(
        session_id="s", outcome=Outcome.INTERRUPTED, resource_id="one", total_tokens=3
    )
    REAL = stored_request(
        session_id="s", outcome=Outcome.FAILED, resource_id="two", total_tokens=10
    )

    @pytest.mark.parametrize(
        "batches",
        [
            pytest.param([[LOST], [REAL]], id="replaced later"),
            pytest.param([[REAL], [LOST]], id="too late"),
            pytest.param([[LOST, REAL]], id="same batch"),
            pytest.param([[REAL, LOST]], id="same batch, other order"),
            pytest.param([[LOST], [LOST], [REAL], [LOST], [REAL]], id="all again"),
        ],
    )
    async def test_the_real_outcome_stays(
        self, url: str, store: Store, batches: list[list[StreamedEvent]]
    ) -> None:
        for batch in batches:
            await store.write(batch)
        assert fetch(url, "SELECT id, outcome FROM requests") == [("req-1", "failed")]
        assert session_rows(url) == [("s", None, 1, 10, "two")]
        ((raw,),) = fetch(url, "SELECT data FROM events")
        assert '"failed"' in str(raw).replace("'", '"')
        assert (await store.counts()).requests == 1


class TestSessions:
    async def test_counts_and_names(self, url: str, store: Store) -> None:
        await store.write([
            stored_request("b", session_id="s", session_name="new", total_tokens=2,
                           created_at_ms=T0_MS + 5, resource_id="two"),
        ])  # fmt: skip
        await store.write([
            stored_request("a", session_id="s", session_name="old", total_tokens=1,
                           created_at_ms=T0_MS, resource_id="one"),
            stored_request("c", session_id="other"),
            stored_request("d"),
        ])  # fmt: skip
        assert session_rows(url) == [
            ("other", None, 1, 0, None),
            ("s", "new", 2, 3, "two"),
        ]
        ((first, last),) = [
            (r["first_seen_at"], r["last_seen_at"])
            for r in (await store.history(HistoryQuery("sessions"))).rows
            if r["id"] == "s"
        ]
        assert (first, last) == ("2023-11-14T22:13:20.123Z", "2023-11-14T22:13:20.128Z")

    async def test_a_newer_request_names_the_session(
        self, url: str, store: Store
    ) -> None:
        await store.write([stored_request("a", session_id="s", session_name="old")])
        await store.write([
            stored_request("b", session_id="s", created_at_ms=T0_MS + 1,
                           session_name="new", resource_id="two"),
            stored_request("c", session_id="s", created_at_ms=T0_MS + 2),
        ])  # fmt: skip
        assert session_rows(url) == [("s", "new", 3, 0, "two")]


async def ids(store: Store, query: HistoryQuery) -> list[str]:
    return [row["id"] for row in (await store.history(query)).rows]


class TestHistory:
    @pytest_asyncio.fixture
    async def filled(self, store: Store) -> Store:
        """Seven requests, the middle ones within one millisecond; a decision
        each, of alternating sessions and resources."""
        batch = []
        for n in range(7):
            given = {
                "created_at_ms": T0_MS + (0 if n in (2, 3, 4) else n - 3),
                "session_id": f"s{n % 2}",
                "resource_id": f"openai-{n % 3}",
            }
            batch.append(stored_request(f"r{n}", **given))
            batch.append(streamed(decision_event(f"r{n}", **given), f"d{n}"))
        await store.write(batch)
        return store

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

    async def test_a_request_has_its_decisions_in_order(self, store: Store) -> None:
        await store.write([
            streamed(decision_event("r", attempt=2), "d2"),
            streamed(decision_event("r", attempt=1), "d9"),
            streamed(decision_event("other"), "d0"),
            stored_request("r"),
        ])  # fmt: skip
        row = await store.request("r")
        assert row is not None
        assert [d["id"] for d in row["decisions"]] == ["d9", "d2"]

    @pytest.mark.parametrize("id_", ["nobody", "", "a\0b"])
    async def test_a_request_nobody_made(self, store: Store, id_: str) -> None:
        assert await store.request(id_) is None


UNSTORABLE = ["a\0b", "\ud800", "\0", "resp_\udfff"]


class TestOwners:
    MINTED = stored_request(
        resource_id="one", account_id="acct-a", minted=("resp_1", "msg_1", "conv_1")
    )

    async def test_are_found_by_every_id_an_answer_minted(self, store: Store) -> None:
        await store.write([self.MINTED])
        owner = Owner("one", "acct-a")
        assert await store.owners(["conv_1", "resp_1", "resp_1", "resp_2"]) == {
            "resp_1": owner, "conv_1": owner,
        }  # fmt: skip
        assert await store.owners([]) == {}

    async def test_the_newest_answer_tells(self, url: str, store: Store) -> None:
        later = stored_request("req-2", created_at_ms=T0_MS + 1, resource_id="two",
                               account_id="acct-b", minted=("conv_1",))  # fmt: skip
        earlier = stored_request("req-0", created_at_ms=T0_MS - 1, resource_id="zero",
                                 account_id="acct-z", minted=("conv_1",))  # fmt: skip
        for batch in ([later, self.MINTED], [earlier]):
            await store.write(batch)
        assert await store.owners(["conv_1", "msg_1"]) == {
            "conv_1": Owner("two", "acct-b"),
            "msg_1": Owner("one", "acct-a"),
        }
        assert len(fetch(url, "SELECT * FROM minted_ids")) == 5

    async def test_are_found_in_every_days_partition(self, store: Store) -> None:
        await store.make_partitions(date(2023, 11, 14))
        day_ms = 86_400_000
        await store.write([
            stored_request(f"r{n}", created_at_ms=T0_MS + n * day_ms,
                           resource_id=f"openai-{n}", minted=("conv_1", f"resp_{n}"))
            for n in (3, 0, 1, 2)
        ])  # fmt: skip
        found = await store.owners(["conv_1", "resp_0", "resp_2"])
        assert {id_: owner.resource_id for id_, owner in found.items()} == {
            "conv_1": "openai-3", "resp_0": "openai-0", "resp_2": "openai-2",
        }  # fmt: skip

    async def test_a_resource_without_an_account_is_one_of_its_own(
        self, store: Store
    ) -> None:
        await store.write([
            stored_request(session_id="s", resource_id="one", minted=("resp_1",))
        ])  # fmt: skip
        assert await store.owners(["resp_1"]) == {"resp_1": Owner("one", "one")}
        assert await store.session_owner("s") == Owner("one", "one")

    async def test_what_nobody_served_is_nobodys(self, url: str, store: Store) -> None:
        await store.write([stored_request(session_id="s", minted=("resp_1",))])
        assert fetch(url, "SELECT * FROM minted_ids") == []
        assert await store.owners(["resp_1"]) == {}
        assert await store.session_owner("s") is None

    async def test_a_real_outcome_brings_its_ids(self, store: Store) -> None:
        lost = stored_request(outcome=Outcome.INTERRUPTED, resource_id="one")
        await store.write([lost])
        await store.write([self.MINTED, lost])
        assert await store.owners(["resp_1"]) == {"resp_1": Owner("one", "acct-a")}

    @pytest.mark.parametrize("odd", UNSTORABLE, ids=ascii)
    async def test_what_no_database_holds_is_unknown(
        self, store: Store, odd: str
    ) -> None:
        await store.write([self.MINTED])
        assert await store.owners([odd]) == {}
        assert list(await store.owners([odd, "resp_1"])) == ["resp_1"]
        assert await store.session_owner(odd) is None

    async def test_a_sessions_owner_served_its_newest_completed_request(
        self, store: Store
    ) -> None:
        served: dict[int, dict[str, Any]] = {
            1: {"resource_id": "one"},
            2: {"resource_id": "two", "account_id": "acct-b"},
            3: {"resource_id": "three", "outcome": Outcome.FAILED},
            4: {"resource_id": "four", "outcome": Outcome.INTERRUPTED},
            5: {"resource_id": None},
        }
        await store.write([
            stored_request(f"r{n}", created_at_ms=T0_MS + n, session_id="s", **given)
            for n, given in served.items()
        ])  # fmt: skip
        assert await store.session_owner("s") == Owner("two", "acct-b")
        assert await store.session_owner("t") is None


class TestDeadLetters:
    LETTER = DeadLetter("x", "1-0", "r", "request", "no JSON", "{", T0_MS)

    async def test_are_parked_once(self, url: str, store: Store) -> None:
        again = DeadLetter("x", "2-0", "r", "request", "no JSON", "{", T0_MS)
        assert await store.write_dead_letters([self.LETTER, again]) == 1
        assert await store.write_dead_letters([again]) == 0
        assert await store.write_dead_letters([]) == 0
        assert len(fetch(url, "SELECT * FROM dead_letters")) == 1

    async def test_are_counted(self, store: Store) -> None:
        nameless = DeadLetter("y", "3-0", None, None, "?", "", T0_MS)
        reshaped = DeadLetter("z", "4-0", "r", "request", "?", "", T0_MS)
        await store.write_dead_letters([self.LETTER, nameless, reshaped])
        counts = await store.counts()
        assert (counts.requests, counts.dead_letters, counts.dead_requests) == (0, 3, 1)


class TestDays:
    async def test_old_days_go_new_ones_stay(self, url: str, store: Store) -> None:
        day_ms = 86_400_000
        await store.make_partitions(datetime.fromtimestamp(T0_MS / 1000, UTC).date())
        batch = [stored_request(f"r{n}", created_at_ms=T0_MS + n * day_ms,
                                resource_id="one", minted=(f"resp_{n}",))
                 for n in (-400, -1, 0, 1)]  # fmt: skip
        await store.write(batch)
        assert await store.drop_before(date(2023, 11, 14)) > 0
        assert fetch(url, "SELECT id FROM requests ORDER BY 1") == [("r0",), ("r1",)]
        minted = fetch(url, "SELECT id FROM minted_ids ORDER BY 1")
        assert minted == [("resp_0",), ("resp_1",)]
        assert (await store.counts()).requests == 4


class TestPlans:
    """Lookups stay quick however much is stored."""

    @pytest_asyncio.fixture
    async def filled(self, url: str, store: Store) -> str:
        for start in range(0, 1500, 500):
            requests = [
                stored_request(f"r{n}", session_id=f"s{n}", created_at_ms=T0_MS + n,
                               resource_id=f"openai-{n}", minted=(f"resp_{n}",))
                for n in range(start, start + 500)
            ]  # fmt: skip
            decisions = [
                streamed(decision_event(f"r{n}", session_id=f"s{n}",
                                        created_at_ms=T0_MS + n,
                                        resource_id=f"openai-{n}"), f"d{n}")
                for n in range(start, start + 500)
            ]  # fmt: skip
            await store.write([*requests, *decisions])
        execute(url, "ANALYZE")
        return url

    async def test_ids_are_found_by_the_primary_key(self, filled: str) -> None:
        plan = explain(filled, "owners", ids=["resp_7", "resp_8"])
        assert not re.search("(Seq Scan on|SCAN) (minted_ids|newest)", plan), plan
        assert "minted_ids_default_pkey" in plan or "PRIMARY KEY (id=?)" in plan

    async def test_a_sessions_owner_is_found_by_its_index(self, filled: str) -> None:
        for session_id in ("s7", "nobody"):
            plan = explain(filled, "session_owner", session_id=session_id)
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
        self, filled: str, query: HistoryQuery, indexes: str
    ) -> None:
        values = {
            "session_id": query.session_id,
            "resource_id": query.resource_id,
            "request_id": query.request_id,
            "before_at": "9999-01-01T00:00:00.000Z",
            "before_id": "",
            "rows": 11,
        }
        of_postgres, of_sqlite = indexes.split(maxsplit=1)
        postgres = is_postgres(filled)
        name = f"history_{query.table}" if postgres else history_statement(query)
        plan = explain(filled, name, **values)
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
        self, filled: str, name: str, values: dict[str, Any], indexes: str
    ) -> None:
        plan = explain(filled, name, **values)
        of_postgres, of_sqlite = indexes.split(maxsplit=1)
        assert (of_postgres if is_postgres(filled) else of_sqlite) in plan, plan


def explain(url: str, name: str, **values: Any) -> str:
    """The plan of a statement, a line each step."""
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
        store = open_store(postgres_url)
        await store.ping()
        execute(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        await store.ping()
        await store.close()


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
                {
                    "session_id": "s7",
                    "resource_id": None,
                    "request_id": None,
                    "before_at": "infinity",
                    "before_id": "",
                    "rows": 10,
                    **ALL._asdict(),
                },
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


def captured(request_id: str = "req-1", **given: Any) -> StreamedPayload:
    """Both bodies of a request, the answer's dropped."""
    event = PayloadEvent(
        request_id=request_id,
        created_at_ms=T0_MS,
        request=BodyNote(original_bytes=5, content_type="text/plain", **given),
        response=BodyNote(original_bytes=9, dropped="no room"),
    )
    return StreamedPayload(
        entry_id=f"{T0_MS}-0",
        id=request_id,
        kind="payload",
        event=event,
        bodies={"request": b"\0\xff packed"},
    )


class TestPayloads:
    async def test_are_stored_once_and_found_by_their_request(
        self, url: str, store: Store
    ) -> None:
        await store.write([stored_request()])
        assert await store.write_payloads([captured(), captured("other")]) == 4
        assert await store.write_payloads([captured(truncated=True)]) == 0
        row = await store.request("req-1")
        assert row is not None
        asked, answered = sorted(
            await store.payloads(row), key=lambda found: str(found["direction"])
        )
        assert asked == {
            "request_id": "req-1",
            "created_at": "2023-11-14T22:13:20.123Z",
            "direction": "request",
            "content_type": "text/plain",
            "encoding": "zstd",
            "original_bytes": 5,
            "truncated": False,
            "dropped": None,
            "body": b"\0\xff packed",
        }
        assert (answered["body"], answered["dropped"]) == (b"", "no room")
        assert fetch(url, "SELECT count(*) FROM events WHERE kind = 'payload'") == [
            (0,)
        ]

    async def test_go_with_their_day(self, url: str, store: Store) -> None:
        await store.write_payloads([captured()])
        await store.make_partitions(date(2023, 11, 14))
        assert len(table_rows(url, "payloads")) == 2
        assert await store.write_payloads([captured()]) == 0
        await store.drop_before(date(2023, 11, 15))
        assert table_rows(url, "payloads") == []

    async def test_histories_hold_no_bodies(self, store: Store) -> None:
        await store.write([stored_request()])
        await store.write_payloads([captured()])
        (row,) = (await store.history(HistoryQuery("requests"))).rows
        assert not any(isinstance(value, bytes) for value in row.values())


class TestSqliteOnly:
    async def test_old_rows_go_in_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.common.store.sqlite.DROPPED_ROWS", 2)
        url = f"sqlite:///{tmp_path}/proxy.sqlite3"
        store = open_store(url)
        await store.migrate()
        old = [stored_request(f"r{n}", resource_id="one", minted=(f"resp_{n}",))
               for n in range(5)]  # fmt: skip
        await store.write([*old, streamed(decision_event("r1"))])
        # Requests, their events and ids, and a decision with its own event.
        assert await store.drop_before(date(2023, 11, 15)) == 3 * 5 + 2
        for table in ("requests", "decisions", "events", "minted_ids"):
            assert table_rows(url, table) == []
        await store.close()

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
        assert len(names) <= 1  # it may still be on its way out


class TestBooks:
    async def test_what_is_stored_is_counted_for_its_gateway_once(
        self, store: Store
    ) -> None:
        lost = stored_request("r2", gateway_id="b", outcome=Outcome.INTERRUPTED)
        await store.write([stored_request("r1", gateway_id="a"), lost])
        await store.write([stored_request("r1", gateway_id="a")])
        await store.write([stored_request("r2", gateway_id="b")])
        await store.write([stored_request("r3")])
        # Nobody told of them lately, and nothing is outstanding: all in one.
        (rest,) = await store.books()
        assert (rest.id, rest.accepted, rest.stored) == ("*", 3, 3)
        # But for whom one asks.
        asked = {b.id: b.stored for b in await store.books(["a", "nobody"])}
        assert asked == {"a": 1, "*": 2}

    async def test_reports_come_in_any_order(self, store: Store) -> None:
        now = milliseconds(datetime.now(UTC))
        early = gateway_event("a", created_at_ms=now - 9000, accepted=3, held=2)
        late = gateway_event("a", created_at_ms=now, accepted=5, ended=4, held=1)
        await store.write([streamed(late, "2"), stored_request("r", gateway_id="a")])
        await store.write([streamed(early, "1")])
        assert await self._book(store, "a") == (5, 4, 1, "running", 1)
        closed = gateway_event("a", created_at_ms=now - 1, accepted=6, state="closed")
        await store.write([streamed(closed, "3"), streamed(early, "1")])
        await store.write([streamed(late, "4")])
        assert await self._book(store, "a") == (6, 4, 1, "closed", 1)

    async def _book(self, store: Store, id_: str) -> tuple[object, ...]:
        book = {b.id: b for b in await store.books()}[id_]
        return book.accepted, book.ended, book.held, book.state, book.stored

    async def test_parked_requests_count_until_they_are_stored(
        self, store: Store
    ) -> None:
        def letter(id_: str, event_id: str, gateway_id: str | None) -> DeadLetter:
            return DeadLetter(
                id_, "1-0", event_id, "request", "bad", "{}", T0_MS, gateway_id
            )

        await store.write([streamed(gateway_event("a", accepted=3), "1")])
        await store.write_dead_letters(
            [letter("1", "r1", "a"), letter("2", "r1", "a"), letter("3", "r2", "a"),
             letter("4", "junk", None)]
        )  # fmt: skip
        books = {b.id: (b.accepted, b.stored, b.dead) for b in await store.books()}
        assert books == {"a": (3, 0, 2), "*": (1, 0, 1)}
        await store.write([stored_request("r2", gateway_id="a")])
        books = {b.id: (b.accepted, b.stored, b.dead) for b in await store.books()}
        assert books["a"] == (3, 1, 1)

    async def test_requests_from_before_the_books_are_in_the_sum(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await migrate_to(5, url, monkeypatch)
        execute(url, "UPDATE totals SET total = 7 WHERE name = 'requests'")
        store = open_store(url)
        await store.migrate()
        (rest,) = await store.books()
        assert (rest.accepted, rest.stored) == (7, 7)
        await store.close()
