"""The store on Postgres over a scripted connection: which statements, in which order,
and what errors become. What a real server does with them is tested in
tests/integration/store."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from libs.common.contracts.payloads import Note, Payload
from libs.common.contracts.prices import Price
from libs.common.errors import StoreAway
from libs.common.routing.types import Owner
from libs.common.store.interface import (
    Book,
    DeadLetter,
    HistoryQuery,
    SchemaTooNew,
    Unstorable,
)
from libs.common.store.migrate import known_migrations
from libs.common.store.postgres import store as postgres
from libs.common.store.postgres.store import PostgresStore
from libs.common.store.rows import instant
from tests.support.databases.statements import FakeConnection
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    gateway_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio
NEWEST = len(known_migrations("postgres"))
AT = "2023-11-14T22:13:20.123Z"
BATCH = [
    stored_request(session_id="s", resource_id="one", minted=("x",), gateway_id="gw",
                   proxy_key_id="key_1"),
    streamed(decision_event()),
    streamed(gateway_event("gw")),
]  # fmt: skip
SERVED = {"resource_id": "one", "account_id": "acct"}
BODY = Payload("r", T0_MS, Note(1), request_body=b"b")
REPLAYED = psycopg.errors.UniqueViolation("duplicate key")


class World:
    """A store and the connection behind its pool."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connection = FakeConnection()
        self.failure: Exception | None = None  # of the pool
        self.opened = self.closed = 0
        world = self

        class Pool:
            check_connection = None

            def __init__(self, url: str, **options: Any) -> None:
                world.options = options

            async def open(self, *, wait: bool) -> None:
                assert not wait
                world.opened += 1

            @asynccontextmanager
            async def connection(self) -> AsyncIterator[FakeConnection]:
                if world.failure:
                    raise world.failure
                yield world.connection

            async def close(self) -> None:
                world.closed += 1

        self.options: Mapping[str, Any] = {}
        monkeypatch.setattr(postgres, "AsyncConnectionPool", Pool)
        self.store = PostgresStore("postgresql://u:hush@h/d")

    def answer(self, **answers: Any) -> None:
        self.connection.answers = answers

    @property
    def ran(self) -> list[str]:
        return self.connection.ran


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_nothing_is_connected_before_the_first_call(world: World) -> None:
    assert world.opened == 0
    assert world.options["min_size"] == 0
    # Behind pgbouncer a prepared statement is somebody else's.
    assert world.options["kwargs"]["prepare_threshold"] is None
    await world.store.ping()
    await world.store.close()
    assert (world.opened, world.closed) == (1, 1)


async def test_every_transaction_brings_its_own_limits(world: World) -> None:
    await world.store.ping()
    assert world.ran == ["begin", "limits", "ping", "commit"]
    limits = world.connection.values["limits"]
    assert set(limits) == {"statement_ms", "lock_ms", "idle_ms"}
    assert set(limits.values()) == {"15000"}


# Errors ---------------------------------------------------------------------


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
async def test_refused_data_is_told_from_a_server_that_is_away(
    world: World, error: Exception, kind: type[Exception]
) -> None:
    world.answer(put_prices=error, clear_prices=1)
    with pytest.raises(kind, match="Postgres"):
        await world.store.put_prices([Price("m", instant(T0_MS), 1, 1, 1)])
    assert world.ran[-1] == "rollback"


async def test_what_is_our_own_mistake_is_not_hidden(world: World) -> None:
    world.answer(ping=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await world.store.ping()


async def test_no_connection_is_told_with_its_cause(world: World) -> None:
    world.failure = PoolTimeout("couldn't get a connection after 3.00 sec")
    with pytest.raises(StoreAway, match=r"3\.00 sec"):
        await world.store.ping()
    world.store._note("password authentication failed")
    with pytest.raises(StoreAway, match="password authentication failed"):
        await world.store.ping()


# Schema ---------------------------------------------------------------------


async def test_migrations_that_are_missing_run_in_one_transaction(
    world: World,
) -> None:
    versions = iter([NEWEST - 2, NEWEST])
    world.answer(schema_version=lambda _: [{"version": next(versions)}])
    assert await world.store.migrate() == NEWEST
    scripts = [m.script for m in known_migrations("postgres")[-2:]]
    assert world.ran == [
        "begin", "limits", "lock_migrations", "create_migrations", "schema_version",
        scripts[0], "record_migration", scripts[1], "record_migration",
        "schema_version", "commit",
    ]  # fmt: skip
    assert world.connection.values["limits"]["statement_ms"] == "900000"


async def test_a_newer_schema_is_left_alone(world: World) -> None:
    world.answer(schema_version=[{"version": NEWEST + 1}])
    with pytest.raises(SchemaTooNew):
        await world.store.migrate()
    assert world.ran[-1] == "rollback"


async def test_the_version_before_the_first_migration(world: World) -> None:
    world.answer(schema_version=psycopg.errors.UndefinedTable("none"))
    assert await world.store.schema_version() == 0
    world.answer(schema_version=[{"version": 3}])
    assert await world.store.schema_version() == 3


async def test_partitions_are_made_a_week_ahead(world: World) -> None:
    world.answer(make_partitions=[{"partitions": 9}])
    assert await world.store.make_partitions(date(2026, 1, 2)) == 9
    days = world.connection.values["make_partitions"]
    assert days == {"first": date(2026, 1, 1), "last": date(2026, 1, 9)}


async def test_each_old_partition_goes_by_itself_then_the_rest(
    world: World,
) -> None:
    strays, sessions = iter([5000, 12, 0]), iter([7, 0])
    world.answer(
        old_partitions=[{"name": "a"}, {"name": "b"}],
        drop_partition=[{"dropped": 1}],
        delete_strays=lambda _: [{"deleted": next(strays)}],
        drop_sessions=lambda _: [{"deleted": next(sessions)}],
        drop_rollups=[{"deleted": 0}],
    )
    assert await world.store.drop_before(date(2026, 1, 2)) == 2
    assert world.ran.count("drop_partition") == 2
    assert world.ran.count("delete_strays") == 3
    assert world.ran.count("drop_sessions") == 2
    assert world.ran.count("commit") == 9


# Writing --------------------------------------------------------------------


async def test_a_batch_goes_in_by_copy(world: World) -> None:
    assert await world.store.write(BATCH) == 3
    assert world.ran == [
        "begin", "limits", "lock_writers", "add_events", "add_requests",
        "add_decisions", "add_minted_ids", "add_batch", "commit",
    ]  # fmt: skip
    assert world.connection.values["add_batch"]["fresh"] == 1
    assert len(world.connection.copied["add_requests"].rows) == 1


async def test_a_batch_is_prepared_without_the_database(world: World) -> None:
    write = world.store.prepare(BATCH)
    assert world.opened == 0
    world.answer(add_events=psycopg.OperationalError("the server is gone"))
    with pytest.raises(StoreAway):
        await write()
    world.answer()
    assert await write() == 3
    assert len(world.connection.copied["add_requests"].rows) == 1


async def test_what_cannot_be_prepared_is_refused_when_it_is_written(
    world: World,
) -> None:
    write = world.store.prepare([stored_request(session_id="\ud800")])
    with pytest.raises(Unstorable, match="Postgres refused"):
        await write()
    assert world.ran == []


async def test_a_batch_that_is_there_in_part_is_merged(world: World) -> None:
    world.answer(add_requests=REPLAYED, put_events=1, put_decisions=1)
    assert await world.store.write(BATCH) == 2
    assert world.ran.count("rollback") == 1
    merged = world.ran[world.ran.index("rollback") :]
    assert merged == [
        "rollback", "begin", "limits", "lock_writers", "known_requests", "put_events",
        "put_requests", "put_decisions", "put_minted_ids", "add_batch", "commit",
    ]  # fmt: skip


async def test_what_was_stored_before_counts_no_second_time(world: World) -> None:
    row = {
        "id": "req-1", "created_at": instant(T0_MS), "session_id": None,
        "outcome": "completed", "total_tokens": 1,
        "resource_id": None, "proxy_key_id": None,
    }  # fmt: skip
    world.answer(add_requests=REPLAYED, known_requests=[row])
    assert await world.store.write([stored_request()]) == 0
    assert "add_batch" not in world.ran
    assert "put_requests" not in world.ran


async def test_data_that_is_refused_is_not_merged(world: World) -> None:
    world.answer(add_requests=psycopg.errors.NotNullViolation("method"))
    with pytest.raises(Unstorable):
        await world.store.write(BATCH)
    assert "known_requests" not in world.ran


async def test_bodies_take_no_turn_with_the_ledgers_writers(world: World) -> None:
    assert await world.store.write_payloads([BODY]) == 1
    assert world.ran == ["begin", "limits", "lock_partitions", "add_payloads", "commit"]


async def test_bodies_that_are_there_in_part_are_merged(world: World) -> None:
    world.answer(add_payloads=REPLAYED, put_payloads=1)
    assert await world.store.write_payloads([BODY]) == 1
    assert world.ran.count("rollback") == 1
    merged = world.ran[world.ran.index("rollback") :]
    assert merged == [
        "rollback", "begin", "limits", "lock_partitions", "put_payloads", "commit"
    ]  # fmt: skip


async def test_dead_letters_are_one_statement(world: World) -> None:
    letter = DeadLetter("l", "5-0", None, None, "odd", "", T0_MS)
    world.answer(put_dead_letters=1)
    assert await world.store.write_dead_letters([letter]) == 1
    assert world.ran == ["begin", "limits", "put_dead_letters", "commit"]


# Reading --------------------------------------------------------------------


async def test_what_no_database_holds_is_not_asked_for(world: World) -> None:
    assert await world.store.request("a\0") is None
    assert await world.store.dead_letter("a\0") is None
    assert await world.store.session_owner("\ud800") is None
    assert world.ran == []
    assert await world.store.owners(["a\0"]) == {}
    assert "owners" not in world.ran


async def test_a_request_with_its_decisions(world: World) -> None:
    times = {"created_at": instant(T0_MS), "completed_at": instant(T0_MS + 900)}
    world.answer(request=[{"id": "r", **times}], decisions_of_request=[{"id": "d"}])
    row = await world.store.request("r")
    assert row is not None
    assert (row["created_at"], row["decisions"]) == (AT, [{"id": "d"}])
    world.answer(request=[])
    assert await world.store.request("r") is None


async def test_owners_are_looked_for_in_ever_more_days(world: World) -> None:
    looked: list[list[str]] = []

    def owners(values: Mapping[str, Any]) -> list[dict[str, Any]]:
        looked.append(sorted(values["ids"]))
        found = {1: "a", 2: "b"}.get(len(looked))
        row = {"id": found, **SERVED, "tenant": "key:k", "repeated": False}
        return [row] if found else []

    world.answer(owners=owners)
    found = await world.store.owners(["a", "b"])
    assert found == dict.fromkeys("ab", Owner("one", "acct", "key:k"))
    assert looked == [["a", "b"], ["b"]]  # nothing is left for the third
    assert "tenants" not in world.ran


async def test_ids_that_were_repeated_are_of_who_told_them_first(world: World) -> None:
    """The newest row says which resource has the id, and the oldest whose it is. One
    from before there were tenants has to be asked its request."""
    newest = [
        {"id": "a", **SERVED, "tenant": "key:k", "repeated": True},
        {"id": "b", **SERVED, "tenant": None, "repeated": None},
        {"id": "c", **SERVED, "tenant": None, "repeated": None},
    ]
    made = {"request_id": "r", "created_at": instant(T0_MS)}
    world.answer(
        owners=newest,
        tenants=[
            {"id": "a", "tenant": "key:first", **made},
            {"id": "b", "tenant": None, **made},
            {"id": "c", "tenant": None, **made, "request_id": "gone"},
        ],
        tenant_of_request=lambda values: (
            [{"tenant": "team:red"}] if values["request_id"] == "r" else []
        ),
    )
    assert await world.store.owners(["a", "b", "c"]) == {
        "a": Owner("one", "acct", "key:first"),
        "b": Owner("one", "acct", "team:red"),
        "c": Owner("one", "acct", ""),
    }


async def test_a_sessions_owner(world: World) -> None:
    assert await world.store.session_owner("s") is None
    seen = {"last_seen_at": datetime(2026, 1, 2, tzinfo=UTC)}
    world.answer(session_seen=[seen], session_owner=[SERVED])
    assert await world.store.session_owner("s") == Owner("one", "acct")
    assert world.connection.values["session_owner"]["tenant"] == ""
    owner = await world.store.session_owner("s", "key:k")
    assert owner == Owner("one", "acct", "key:k")
    assert world.connection.values["session_owner"]["tenant"] == "key:k"
    world.answer(session_seen=[seen])
    assert await world.store.session_owner("s") is None


@pytest.mark.parametrize(("rows", "more"), [(2, False), (3, True)])
async def test_a_page_of_history(world: World, rows: int, more: bool) -> None:
    found = [{"id": f"r{n}", "created_at": instant(T0_MS)} for n in range(rows)]
    world.answer(history_requests=found)
    page = await world.store.history(HistoryQuery("requests", limit=2))
    assert [row["id"] for row in page.rows] == ["r0", "r1"]
    assert (page.next_cursor is not None) is more
    values = world.connection.values["history_requests"]
    assert (values["before_at"], values["rows"]) == ("9999-12-31T23:59:59.999Z", 3)
    query = HistoryQuery("requests", limit=2, cursor=page.next_cursor)
    await world.store.history(query)
    if more:
        assert world.connection.values["history_requests"]["before_at"] == AT


async def test_the_rest_is_one_statement_each(world: World) -> None:
    book = Book("gw", None, None, 1, 1, 0, "running", 1, 0)
    fields = {name: getattr(book, name) for name in book.__slots__}
    world.answer(
        counts=[{"requests": 3, "dead_letters": 2, "dead_requests": 1}],
        gateways=[fields],
        dead_letters=[{"id": "l"}],
        dead_letter_ids=[{"id": "l"}],
        dead_letter=[{"id": "l"}],
        forget_dead_letter=[{"id": "l"}],
        payloads_of_request=[{"direction": "request"}],
        providers=[{"id": "acme"}],
    )
    store = world.store
    assert (await store.counts()).dead_requests == 1
    assert await store.books(["gw"]) == (book,)
    assert await store.dead_letters(5) == [{"id": "l"}]
    assert await store.dead_letter_ids() == ["l"]
    assert await store.dead_letter("l") == {"id": "l"}
    assert await store.forget_dead_letter({"id": "l", "data": "{}"})
    row = {"id": "r", "created_at": AT}
    assert await store.payloads(row) == [{"direction": "request"}]
    assert await store.fetch("providers", {"id": None}) == [{"id": "acme"}]
    assert world.connection.values["dead_letters"] == {"rows": 5}
