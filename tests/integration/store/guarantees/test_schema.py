"""The schema, its days, and the ledger's books, the same on SQLite and on Postgres."""

import asyncio
from datetime import UTC, date, datetime

import pytest

from libs.common.contracts.events import Outcome
from libs.common.errors import StoreAway
from libs.common.store.factory import open_store
from libs.common.store.interface import DeadLetter, HistoryQuery, SchemaTooNew
from libs.common.store.migrate import known_migrations
from libs.common.store.rows import milliseconds
from libs.common.store.store import Store
from tests.support.databases.sql import columns, execute, fetch, is_postgres, table_rows
from tests.support.databases.stored import BATCH, migrate_to, snapshot
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    gateway_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio

# A public contract: operators write queries with these names.
COLUMNS = {
    "requests": "id created_at completed_at session_id session_name pool_id "
    "resource_id account_id proxy_key_id method path model upstream_model transport "
    "status_code outcome error_code error_message attempts latency_ms upstream_ms "
    "first_token_ms overhead_ms input_tokens cached_tokens output_tokens "
    "reasoning_tokens total_tokens usage_state request_bytes response_bytes "
    "service_tier response_id previous_response_id gateway_id team_id cost_nanos",
    "decisions": "id request_id attempt created_at session_id pool_id resource_id "
    "reason candidates degraded cause waited_ms",
    "sessions": "id name first_seen_at last_seen_at requests total_tokens "
    "last_resource_id",
    "minted_ids": "id created_at request_id resource_id account_id tenant repeated",
    "gateways": "id started_at last_seen_at accepted ended held state stored shard",
    "payloads": "request_id created_at direction content_type encoding "
    "original_bytes truncated body dropped",
}


NEWEST = len(known_migrations("sqlite"))  # schema version


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
        with pytest.raises(SchemaTooNew, match="has schema version 99"):
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

    async def test_sessions_nobody_uses_any_more_go_with_their_days(
        self, url: str, store: Store
    ) -> None:
        """Clients choose session ids: a client with a new one for each request would
        fill the table forever."""
        day_ms = 86_400_000
        await store.make_partitions(datetime.fromtimestamp(T0_MS / 1000, UTC).date())
        for number, session in ((-2, "old"), (-2, "kept"), (0, "kept"), (0, "new")):
            at = T0_MS + number * day_ms
            await store.write(
                [
                    stored_request(
                        f"{session}{number}",
                        created_at_ms=at,
                        completed_at_ms=at,
                        session_id=session,
                    )
                ]
            )
        await store.drop_before(date(2023, 11, 14))
        left = fetch(url, "SELECT id, requests FROM sessions ORDER BY 1")
        assert left == [("kept", 2), ("new", 1)]


class TestBooks:
    async def test_what_is_stored_is_counted_for_its_gateway_once(
        self, store: Store
    ) -> None:
        lost = stored_request("r2", gateway_id="b", outcome=Outcome.INTERRUPTED)
        await store.write([stored_request("r1", gateway_id="a"), lost])
        await store.write([stored_request("r1", gateway_id="a")])
        await store.write([stored_request("r2", gateway_id="b")])
        await store.write([stored_request("r3")])
        # Gateways without recent reports and without pending requests: one sum.
        (rest,) = await store.books()
        assert (rest.id, rest.accepted, rest.stored) == ("*", 3, 3)
        # Except for ids that are asked for.
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
