"""The store on SQLite. What both databases promise is tested on both in
tests/integration/store/guarantees; here is what needs no server."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from libs.common.contracts.payloads import Note, Payload
from libs.common.contracts.prices import Price
from libs.common.routing.types import Owner
from libs.common.store.interface import (
    Cursor,
    DeadLetter,
    HistoryQuery,
    Table,
)
from libs.common.store.rows import instant
from libs.common.store.sqlite import store as sqlite_store
from libs.common.store.sqlite.store import SqliteStore
from tests.support.databases.sqlite import BATCH, fetched
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    gateway_event,
    stored_request,
    streamed,
)

pytestmark = pytest.mark.asyncio


# Writing --------------------------------------------------------------------


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


# Bodies, dead letters, books, prices, days ----------------------------------


async def test_captured_bodies_are_stored_once(store: SqliteStore) -> None:
    note = Note(original_bytes=5, truncated=True)
    payload = Payload("req-1", T0_MS, note, request_body=b"\0\xff")
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
    monkeypatch.setattr(sqlite_store, "DROPPED_ROWS", 2)
    old = [stored_request(f"r{n}", created_at_ms=T0_MS - 86_400_000) for n in range(5)]
    await store.write([*old, stored_request("new")])
    # Requests, and the events they were read from.
    assert await store.drop_before(date(2023, 11, 14)) >= 5
    assert fetched(path, "SELECT id FROM requests") == [("new",)]
    assert (await store.counts()).requests == 6  # that were ever stored
