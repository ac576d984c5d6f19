"""The store's guarantees, the same on SQLite and on Postgres."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from libs.common.contracts.events import (
    Outcome,
    StreamedEvent,
)
from libs.common.contracts.payloads import Note, Payload
from libs.common.errors import StoreAway
from libs.common.routing.types import Owner
from libs.common.store.factory import open_store
from libs.common.store.interface import (
    DeadLetter,
    HistoryQuery,
    SchemaTooNew,
    Unstorable,
)
from libs.common.store.migrate import known_migrations
from libs.common.store.postgres import store as postgres
from libs.common.store.rows import milliseconds
from libs.common.store.sqlite import schema as sqlite
from libs.common.store.store import Store
from tests.support.databases.sql import columns, execute, fetch, is_postgres, table_rows
from tests.support.databases.stores import database
from tests.support.values.telemetry import (
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
    "gateways": "id started_at last_seen_at accepted ended held state stored",
    "payloads": "request_id created_at direction content_type encoding "
    "original_bytes truncated body dropped",
}


NEWEST = len(known_migrations("sqlite"))  # schema version


DATABASES = ("sqlite", "postgres", "postgres_15")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, request, tmp_path) as url:
        yield url


async def migrate_to(version: int, url: str, patch: pytest.MonkeyPatch) -> None:
    """Create a database with the schema of an earlier version."""
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
        "gateways", "rollups",
    )  # fmt: skip
    return [table_rows(url, table) for table in tables]


def session_rows(url: str) -> list[tuple[object, ...]]:
    return fetch(
        url,
        "SELECT id, name, requests, total_tokens, last_resource_id "
        "FROM sessions ORDER BY id",
    )


BATCH = (
    streamed(decision_event(session_id="s", cause="cooling_down", waited_ms=70)),
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


class TestWriting:
    async def test_a_batch_is_stored_as_it_came(self, store: Store) -> None:
        assert await store.write(BATCH) == 4
        row = await store.request("req-1")
        assert row is not None
        (decision,) = row.pop("decisions")
        expected = msgspec.to_builtins(
            request_event(
                session_id="s",
                session_name="work",
                total_tokens=7,
                resource_id="openai-1",
            )
        )
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
        assert decision["waited_ms"] == 70
        assert decision["candidates"] == [
            msgspec.to_builtins(c) for c in decision_event().candidates
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
        # The same id, reported by another request of the same millisecond.
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
        bad = streamed(request_event("bad", method=None), "bad")  # fmt: skip
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
        self, store: Store, bad: dict[str, Any]
    ) -> None:
        event = request_event(**bad)
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

    async def test_an_id_stays_with_the_tenant_that_minted_it(
        self, store: Store
    ) -> None:
        """A later answer may repeat an id that its client chose."""
        await store.write([
            stored_request(f"r{n}", created_at_ms=T0_MS + n * 86_400_000,
                           resource_id=f"openai-{n}", minted=("msg_1",), **whose)
            for n, whose in enumerate([
                {"proxy_key_id": "key_a", "team_id": "blue"},
                {"proxy_key_id": "key_b", "method": "GET"},
                {"path": "/v1/conversations/conv_1/items"},
            ])
        ])  # fmt: skip
        owner = Owner("openai-2", "openai-2", "team:blue")
        assert await store.owners(["msg_1"]) == {"msg_1": owner}

    async def test_ids_from_before_tenants_are_their_requests(
        self, url: str, store: Store
    ) -> None:
        await store.write([
            stored_request("r1", resource_id="one", minted=("resp_1",),
                           proxy_key_id="key_a"),
            stored_request("r2", resource_id="one", minted=("resp_2",)),
        ])  # fmt: skip
        execute(url, "UPDATE minted_ids SET tenant = NULL, repeated = NULL")
        assert await store.owners(["resp_1", "resp_2"]) == {
            "resp_1": Owner("one", "one", "key:key_a"),
            "resp_2": Owner("one", "one"),
        }

    async def test_a_session_is_looked_for_within_its_tenant(
        self, store: Store
    ) -> None:
        await store.write([
            stored_request(f"r{n}", created_at_ms=T0_MS + n, session_id="s",
                           resource_id=f"openai-{n}", **whose)
            for n, whose in enumerate(
                [{"proxy_key_id": "key_a"}, {"proxy_key_id": "key_b"}, {}]
            )
        ])  # fmt: skip
        for tenant, resource in (("key:key_a", "openai-0"), ("", "openai-2")):
            owner = Owner(resource, resource, tenant)
            assert await store.session_owner("s", tenant) == owner
        assert await store.session_owner("s", "key:key_c") is None

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


def captured(request_id: str = "req-1", **given: Any) -> Payload:
    """Both bodies of a request, the answer's dropped."""
    asked, answered = Note(5, "text/plain", **given), Note(9, dropped="no room")
    body = b"\0\xff packed"
    return Payload(request_id, T0_MS, asked, answered, request_body=body)


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
