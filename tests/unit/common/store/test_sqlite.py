"""The store on SQLite. What both databases promise is tested on both in
tests/integration/store/test_store.py; here is what needs no server."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from libs.common.contracts.events import (
    BodyNote,
    Outcome,
    PayloadEvent,
    RequestEvent,
    StreamedEvent,
    StreamedPayload,
)
from libs.common.errors import StoreAway
from libs.common.routing.types import Owner
from libs.common.store import sqlite
from libs.common.store.interface import (
    Cursor,
    DeadLetter,
    HistoryQuery,
    Price,
    SchemaTooNew,
    Table,
    Unstorable,
)
from libs.common.store.migrate import known_migrations
from libs.common.store.rows import instant
from libs.common.store.sqlite import SqliteStore, history_statement
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    gateway_event,
    health_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio
NEWEST = len(known_migrations("sqlite"))
BATCH = (
    streamed(decision_event("req-1", session_id="s")),
    stored_request(session_id="s", total_tokens=7, resource_id="one", account_id="a",
                   minted=("resp_1",)),
    streamed(health_event()),
    streamed(gateway_event("gw")),
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "proxy.sqlite3"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(path)
    await made.migrate()
    yield made
    await made.close()


def fetched(path: Path, query: str) -> list[Any]:
    with sqlite3.connect(path) as connection:
        found = connection.execute(query).fetchall()
    connection.close()
    return found


# The schema -----------------------------------------------------------------


async def test_it_is_migrated_once_by_however_many(path: Path) -> None:
    stores = [SqliteStore(path) for _ in range(3)]
    assert await stores[0].schema_version() == 0
    assert await asyncio.gather(*(s.migrate() for s in stores)) == [NEWEST] * 3
    assert await stores[1].schema_version() == NEWEST
    for each in stores:
        await each.close()


async def test_a_newer_schema_is_left_alone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MIGRATIONS", sqlite.MIGRATIONS[:-1])
    with pytest.raises(SchemaTooNew):
        await store.migrate()


async def test_a_migration_that_fails_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [*sqlite.MIGRATIONS[:-1], sqlite.MIGRATIONS[-1]]
    last = broken[-1]
    broken[-1] = type(last)(last.version, last.name, "CREATE TABLE x (y); SELECT z;")
    monkeypatch.setattr(sqlite, "MIGRATIONS", tuple(broken))
    store = SqliteStore(path)
    with pytest.raises(StoreAway):
        await store.migrate()
    assert await store.schema_version() == 0
    await store.close()


async def test_an_acknowledged_event_is_on_the_disk(store: SqliteStore) -> None:
    # Settings of the connection that writes; FULL is 2.
    connection = store._connection
    assert connection is not None

    def told(name: str) -> Any:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    loop = asyncio.get_running_loop()
    names = ("journal_mode", "synchronous", "foreign_keys")
    found = [await loop.run_in_executor(store._thread, told, name) for name in names]
    assert found == ["wal", 2, 1]


# Writing --------------------------------------------------------------------


async def test_a_batch_is_stored_and_a_replay_changes_nothing(
    path: Path, store: SqliteStore
) -> None:
    assert await store.write(BATCH) == 4
    assert await store.write(BATCH) == 0
    assert await store.write(tuple(reversed(BATCH))) == 0
    row = await store.request("req-1")
    assert row is not None
    assert [d["reason"] for d in row["decisions"]] == ["weighted_least_connections"]
    assert row["decisions"][0]["degraded"] is False
    assert row["decisions"][0]["candidates"][0]["resource"] == "openai-1"
    query = "SELECT requests, total_tokens FROM sessions"
    assert fetched(path, query) == [(1, 7)]
    assert (await store.counts()).requests == 1


async def test_of_a_batch_that_is_stored_in_part_the_rest_is_new(
    store: SqliteStore,
) -> None:
    await store.write([stored_request("a")])
    assert await store.write([stored_request("a"), stored_request("b")]) == 1
    assert (await store.counts()).requests == 2


async def test_nothing_is_stored_of_nothing(store: SqliteStore) -> None:
    assert await store.write([]) == 0


async def test_a_real_outcome_replaces_interrupted_and_never_the_other_way(
    store: SqliteStore,
) -> None:
    lost = stored_request(outcome=Outcome.INTERRUPTED)
    for batch in ([lost], [stored_request()], [lost]):
        await store.write(batch)
    row = await store.request("req-1")
    assert row is not None
    assert row["outcome"] == "completed"
    assert (await store.counts()).requests == 1


@pytest.mark.parametrize("given", [{"input_tokens": 2**70}, {"model": "\ud800"}])
async def test_what_fits_nowhere_is_refused_and_nothing_else_stored(
    store: SqliteStore, given: dict[str, Any]
) -> None:
    fields = {**dict(stored_request("bad").event), **given}
    event = RequestEvent.model_construct(**fields)
    poison = StreamedEvent("1-0", "bad", "request", event, b"{}")
    with pytest.raises((Unstorable, ValueError)):
        await store.write([*BATCH, poison])
    assert (await store.counts()).requests == 0
    assert await store.write(BATCH) == 4


async def test_a_constraint_that_is_no_replay_is_poison(store: SqliteStore) -> None:
    fields = {**dict(stored_request("bad").event), "method": None}
    event = RequestEvent.model_construct(**fields)
    with pytest.raises(Unstorable, match="method"):
        await store.write([StreamedEvent("1-0", "bad", "request", event, b"{}")])


# Reading --------------------------------------------------------------------


async def test_what_is_not_there(store: SqliteStore) -> None:
    assert await store.request("nobody") is None
    assert await store.owners(["nobody", "no\0body"]) == {}
    assert await store.session_owner("nobody") is None
    assert await store.session_owner("\ud83d") is None
    assert await store.dead_letter("nobody") is None
    assert await store.dead_letter("no\0body") is None
    assert await store.make_partitions(date(2026, 1, 1)) == 0
    await store.ping()


async def test_owners_of_ids_and_of_sessions(store: SqliteStore) -> None:
    await store.write(BATCH)
    owner = Owner("one", "a")
    assert await store.owners(["resp_1", "resp_2"]) == {"resp_1": owner}
    assert await store.session_owner("s") == owner


@pytest.mark.parametrize("table", ["sessions", "requests", "decisions"])
@pytest.mark.parametrize("filtered", [None, "session_id", "resource_id", "request_id"])
async def test_a_history_by_pages(
    store: SqliteStore, table: Table, filtered: str | None
) -> None:
    ids = {"session_id": "s", "resource_id": "one", "request_id": "r1"}
    for n in range(3):
        given = {"session_id": f"s{n}" if table == "sessions" else "s"}
        at = {"created_at_ms": T0_MS + n}
        await store.write([
            stored_request(f"r{n}", resource_id="one", **given, **at),
            streamed(decision_event(f"r{n}", resource_id="one", **given, **at),
                     f"d{n}"),
        ])  # fmt: skip
    given_: dict[str, Any] = {}
    if filtered is not None:
        given_[filtered] = ids[filtered]
    if table == "sessions" and filtered == "session_id":
        given_ = {"session_id": "s1"}
    whole = await store.history(HistoryQuery(table, **given_))
    seen: list[Any] = []
    cursor: str | None = None
    while True:
        query = HistoryQuery(table, limit=1, cursor=cursor, **given_)
        page = await store.history(query)
        seen += page.rows
        cursor = page.next_cursor
        if cursor is None:
            break
    assert tuple(seen) == whole.rows
    alone = filtered == "request_id" or "s1" in given_.values()
    assert len(whole.rows) == (1 if alone else 3)


async def test_a_page_after_a_cursor_is_older(store: SqliteStore) -> None:
    await store.write([stored_request("a"), stored_request("b")])
    after = Cursor("2023-11-14T22:13:20.123Z", "b").encode()
    page = await store.history(HistoryQuery("requests", cursor=after))
    assert [row["id"] for row in page.rows] == ["a"]


async def test_the_most_selective_filter_leads() -> None:
    def led(**given: Any) -> str:
        return history_statement(HistoryQuery("requests", **given))

    assert led() == "history_requests"
    assert led(resource_id="o") == "history_requests_by_resource"
    assert led(resource_id="o", session_id="s") == "history_requests_by_session"
    assert led(session_id="s", request_id="r") == "history_requests_by_request"


# Bodies, dead letters, books, prices, days ----------------------------------


async def test_captured_bodies_are_stored_once(store: SqliteStore) -> None:
    note = BodyNote(original_bytes=5, truncated=True)
    event = PayloadEvent(request_id="req-1", created_at_ms=T0_MS, request=note)
    payload = StreamedPayload(
        "5-0", "req-1", "payload", event, bodies={"request": b"\0\xff"}
    )
    await store.write([stored_request()])
    assert await store.write_payloads([payload]) == 1
    assert await store.write_payloads([payload]) == 0
    row = await store.request("req-1")
    assert row is not None
    (body,) = await store.payloads(row)
    assert (body["body"], body["truncated"]) == (b"\0\xff", True)


async def test_a_dead_letter_is_parked_until_its_event_is_stored(
    store: SqliteStore,
) -> None:
    letter = DeadLetter("l", "5-0", "req-1", "request", "odd", "{}", T0_MS, "gw")
    assert await store.write_dead_letters([letter]) == 1
    assert await store.write_dead_letters([letter]) == 0
    counts = await store.counts()
    assert (counts.dead_letters, counts.dead_requests) == (1, 1)
    assert await store.dead_letter_ids() == ["l"]
    assert "data" not in (await store.dead_letters(9))[0]
    row = await store.dead_letter("l")
    assert row is not None
    assert row["data"] == "{}"
    assert not await store.forget_dead_letter(row)
    await store.write([stored_request()])
    assert await store.forget_dead_letter(row)
    assert await store.dead_letter_ids() == []


async def test_a_gateways_books(store: SqliteStore) -> None:
    report = gateway_event("gw", accepted=3, ended=2, held=1)
    await store.write([streamed(report), stored_request("a", gateway_id="gw")])
    books = {book.id: book for book in await store.books(["gw"])}
    assert (books["gw"].accepted, books["gw"].stored) == (3, 1)


async def test_the_price_list_is_replaced_as_a_whole(
    path: Path, store: SqliteStore
) -> None:
    for model in ("old", "new"):
        await store.put_prices([Price(model, instant(T0_MS), 1.0, 0.5, 2.0)])
    assert [row[0] for row in fetched(path, "SELECT model FROM prices")] == ["new"]


async def test_old_days_go_in_parts(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "DROPPED_ROWS", 2)
    old = [stored_request(f"r{n}", created_at_ms=T0_MS - 86_400_000) for n in range(5)]
    await store.write([*old, stored_request("new")])
    # Requests, and the events they were read from.
    assert await store.drop_before(date(2023, 11, 14)) >= 5
    assert fetched(path, "SELECT id FROM requests") == [("new",)]
    assert (await store.counts()).requests == 6  # that were ever stored


# Away -----------------------------------------------------------------------


async def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    store = SqliteStore(folder)
    with pytest.raises(StoreAway, match="SQLite cannot be used"):
        await store.ping()
    await store.close()


async def test_a_schema_that_is_not_there_yet(path: Path) -> None:
    store = SqliteStore(path)
    with pytest.raises(StoreAway, match="no such table"):
        await store.counts()
    await store.migrate()
    assert (await store.counts()).requests == 0
    await store.close()


async def test_a_database_that_is_busy_is_waited_for(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_MS", 20)
    other = SqliteStore(path)
    with sqlite3.connect(path, isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAway, match="locked"):
            await other.write(BATCH)
        holder.execute("ROLLBACK")
    holder.close()
    assert await other.write(BATCH) == 4
    await other.close()
