"""Named statements, each with its values, over a scripted connection."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.common.store.dedupe import Stored
from libs.common.store.interface import Actor, Cursor, HistoryQuery
from libs.common.store.postgres.calls import (
    TYPES,
    applied_version,
    copy_rows,
    fetch_recorded,
    fetch_rows,
    known_requests,
    likely_spans,
    put,
    search,
    take_tables,
)
from libs.common.store.postgres.day_ranges import DAY, EVER, Span
from libs.common.store.rows import instant
from tests.support.databases.statements import FakeConnection
from tests.support.values.telemetry import T0_MS, health_event, stored_request, streamed

pytestmark = pytest.mark.asyncio
AT = "2023-11-14T22:13:20.123Z"


async def test_partitions_are_changed_in_turn_with_a_short_wait_for_tables() -> None:
    connection = FakeConnection()
    await take_tables(connection.typed)
    assert connection.ran == ["lock_migrations", "lock_writers", "limit_locks"]
    assert connection.values["limit_locks"] == {"lock_ms": "200"}


async def test_a_change_is_recorded_under_a_lock() -> None:
    team = {"id": "red", "name": "old"}
    rows = {"teams": [team], "change_team": [{**team, "name": "new"}]}
    connection = FakeConnection(rows)
    values = {"id": "red", "fields": "{}"}
    changed = await fetch_recorded(
        connection.typed, "change_team", values, Actor("ann")
    )
    assert changed == [{"id": "red", "name": "new"}]
    assert connection.ran == ["lock_audit", "teams", "change_team", "add_audit"]
    assert connection.values["teams"] == {"after": "", "rows": 1, "id": "red"}
    recorded = connection.values["add_audit"]
    assert (recorded["actor"], recorded["object_id"]) == ("ann", "red")


async def test_a_refused_change_is_not_recorded() -> None:
    connection = FakeConnection()
    values = {"id": "red"}
    assert not await fetch_recorded(connection.typed, "add_team", values, Actor("ann"))
    assert connection.ran == ["lock_audit", "add_team"]


async def test_the_version_of_the_schema() -> None:
    connection = FakeConnection({"schema_version": [{"version": 7}]})
    assert await applied_version(connection.typed) == 7


async def test_what_the_ledger_knows_of_a_batch() -> None:
    row = {
        "id": "a", "created_at": instant(T0_MS), "session_id": "s",
        "outcome": "failed", "total_tokens": None,
        "resource_id": None, "proxy_key_id": None,
    }  # fmt: skip
    connection = FakeConnection({"known_requests": [row]})
    events = [
        stored_request("a"),
        stored_request("b", created_at_ms=T0_MS + 5),
        streamed(health_event()),
    ]
    known = await known_requests(connection.typed, events)
    assert known == {("a", T0_MS): Stored("s", "failed", 0)}
    values = connection.values["known_requests"]
    assert sorted(values["ids"]) == ["a", "b"]
    assert (values["oldest"], values["newest"]) == (instant(T0_MS), instant(T0_MS + 5))


async def test_without_requests_the_ledger_is_not_asked() -> None:
    connection = FakeConnection()
    assert await known_requests(connection.typed, [streamed(health_event())]) == {}
    assert connection.ran == []


async def test_rows_that_are_new_are_copied() -> None:
    connection = FakeConnection()
    row = ("x", instant(T0_MS), "r", "one", "a", "team:red", False)
    await copy_rows(connection.typed, "minted_ids", [row])
    copied = connection.copied["add_minted_ids"]
    assert (copied.rows, copied.types) == ([row], TYPES["minted_ids"])


async def test_a_batch_is_one_statement_with_its_rows_as_json() -> None:
    connection = FakeConnection({"put_events": 2})
    rows = [{"id": n, "created_at": instant(T0_MS)} for n in "ab"]
    assert await put(connection.typed, "put_events", iter(rows)) == 2
    given = json.loads(connection.values["put_events"]["rows"])
    sent = instant(T0_MS).isoformat().replace("+00:00", "Z")
    assert given == [{"id": n, "created_at": sent} for n in "ab"]
    assert await put(connection.typed, "put_events", ()) == 0
    assert connection.ran == ["put_events"]


async def test_times_are_shown_in_iso_8601() -> None:
    connection = FakeConnection({"request": [{"created_at": instant(T0_MS), "n": 1}]})
    assert await fetch_rows(connection.typed, "request") == [{"created_at": AT, "n": 1}]


@pytest.mark.parametrize(
    ("counts", "enough", "looked", "found"),
    [
        pytest.param((0, 1, 3), 1, 2, 1, id="the first that has one"),
        pytest.param((2, 5, 9), 5, 2, 5, id="the first that has enough"),
        pytest.param((0, 0, 2), 5, 3, 2, id="the last, if none has"),
    ],
)
async def test_spans_are_searched_until_there_is_enough(
    counts: tuple[int, ...], enough: int, looked: int, found: int
) -> None:
    left = list(counts)
    connection = FakeConnection(
        {"history_requests": lambda _: [{"n": n} for n in range(left.pop(0))]}
    )
    now = datetime.now(UTC)
    spans = [Span(now - n * DAY) for n in range(3)]
    rows = await search(
        connection.typed, "history_requests", {"rows": 5}, spans, enough
    )
    assert (len(connection.ran), len(rows)) == (looked, found)
    assert set(connection.values["history_requests"]) == {"rows", "since", "until"}


@pytest.mark.parametrize(
    ("seen", "days"), [([{"first_seen_at": instant(T0_MS)}], None), ([], 1)]
)
async def test_a_sessions_rows_are_of_its_days(
    seen: list[dict[str, Any]], days: int | None
) -> None:
    connection = FakeConnection({"session_seen": seen})
    query = HistoryQuery("requests", session_id="s")
    (span,) = await likely_spans(connection.typed, query)
    if days is None:
        assert span == Span(instant(T0_MS) - DAY)
    else:
        age = datetime.now(UTC) - span.since
        assert timedelta(days=days) <= age < timedelta(days=days, minutes=1)


async def test_a_page_begins_at_its_cursor() -> None:
    connection = FakeConnection()
    newest = await likely_spans(connection.typed, HistoryQuery("requests"))
    assert newest[-1].since == EVER
    cursor = Cursor(AT, "r").encode()
    query = HistoryQuery("requests", cursor=cursor)
    spans = await likely_spans(connection.typed, query)
    assert {span.until for span in spans} == {instant(T0_MS)}
    assert connection.ran == []


async def test_an_id_that_tells_its_day_rules_all_others_out() -> None:
    query = HistoryQuery("decisions", request_id="req-1", session_id="s")
    (span,) = await likely_spans(FakeConnection().typed, query)
    assert span.since == EVER
