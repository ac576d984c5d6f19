"""History queries and their cursors, before any database."""

from typing import Any, cast

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from libs.common.contracts.events import Row
from libs.common.store.interface import (
    BadQuery,
    Cursor,
    HistoryQuery,
    Page,
    Table,
    statuses,
    time_of,
)

AT = "2023-11-14T22:13:20.123Z"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param({"limit": 0}, "limit", id="no rows"),
        pytest.param({"limit": 501}, "limit", id="too many"),
        pytest.param({"table": "events"}, "table", id="not a public table"),
        pytest.param({"session_id": "a\0b"}, "session_id", id="NUL"),
        pytest.param({"cursor": "?"}, "cursor", id="not base64"),
        pytest.param({"cursor": "aGFsbG8"}, "cursor", id="not ours"),
        pytest.param({"cursor": Cursor("infinity", "a").encode()}, "cursor", id="time"),
        pytest.param({"cursor": "é"}, "cursor", id="not ASCII"),
        pytest.param({"cursor": Cursor(AT, "a\0").encode()}, "cursor", id="NUL in it"),
        pytest.param(
            {"cursor": Cursor(AT.replace("Z", "+01:00"), "a").encode()}, "cursor",
            id="another time zone",
        ),
    ],
)  # fmt: skip
def test_nonsense_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadQuery, match=told):
        HistoryQuery(**{"table": "requests", **given})


@pytest.mark.parametrize("id_", ["req-1", "a|b", "ü", ""])
def test_a_cursor_survives_the_journey(id_: str) -> None:
    cursor = Cursor(AT, id_)
    assert HistoryQuery("requests", cursor=cursor.encode()).after == cursor


@drawn(st.text(max_size=60))
def test_any_text_is_a_cursor_or_is_refused(text: str) -> None:
    try:
        cursor = Cursor.decode(text)
    except BadQuery:
        return
    assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("sessions", "last_seen_at"),
        ("requests", "created_at"),
        ("decisions", "created_at"),
    ],
)
def test_what_a_table_is_ordered_by(table: Table, column: str) -> None:
    assert HistoryQuery(table).time_column == column
    assert HistoryQuery(table).after is None


def test_a_page_says_whether_there_is_more() -> None:
    query = HistoryQuery("sessions", limit=1)
    rows = [{"id": "b", "last_seen_at": AT}, {"id": "a", "last_seen_at": AT}]
    first = Page.cut(rows, 1, query.time_column)
    assert first.rows == (rows[0],)
    assert first.next_cursor == Cursor(AT, "b").encode()
    assert Page.cut(rows[:1], 1).next_cursor is None
    assert Page.cut([], 1).rows == ()


@pytest.mark.parametrize("count", range(6))
def test_pages_put_together_are_all_rows(count: int) -> None:
    rows: list[Row] = [{"id": str(n), "created_at": AT} for n in range(count)]
    query = HistoryQuery("requests", limit=2)
    seen: list[Row] = []
    while True:
        begins = next(
            (n + 1 for n, row in enumerate(rows) if query.after
             and row["id"] == query.after.id), 0,
        )  # fmt: skip
        found = Page.cut(rows[begins : begins + query.limit + 1], query.limit)
        seen += found.rows
        if found.next_cursor is None:
            break
        query = HistoryQuery("requests", limit=2, cursor=found.next_cursor)
    assert seen == rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, (None, None)), ("429", (429, 429)), ("4xx", (400, 499))],
)
def test_a_status_is_a_code_or_a_class(
    text: str | None, expected: tuple[int | None, int | None]
) -> None:
    assert statuses(text) == expected


@pytest.mark.parametrize("text", ["", "4", "4x", "4xxx", "6xx", "099", "4xx\n", "٤٠٠"])
def test_any_other_status_is_refused(text: str) -> None:
    with pytest.raises(BadQuery, match="status"):
        HistoryQuery("requests", status=text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z"),
        ("2026-01-02T03:04:05.678901+02:00", "2026-01-02T01:04:05.678Z"),
    ],
)
def test_a_time_is_as_stored_ones_are(text: str | None, expected: str | None) -> None:
    assert time_of("from", text) == expected


@pytest.mark.parametrize(
    "text", ["", "now", "2026-01-02T03:04:05", "2026-01-02", "0001-01-01T00:00+14:00"]
)
def test_any_other_time_is_refused(text: str) -> None:
    for name, query in (("from", {"since": text}), ("to", {"until": text})):
        with pytest.raises(BadQuery, match=f"^{name}: "):
            HistoryQuery("requests", **cast(Any, query))


@drawn(st.text(max_size=30))
def test_any_text_is_a_time_or_is_refused(text: str) -> None:
    try:
        found = time_of("to", text)
    except BadQuery:
        return
    assert found is not None
    assert time_of("to", found) == found


def test_a_page_begins_at_the_cursor_or_at_the_end_of_the_time_asked_for() -> None:
    cursor = Cursor(AT, "b")
    early, late = "2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"
    query = HistoryQuery("requests", cursor=cursor.encode(), until=late)
    assert query.before == cursor
    query = HistoryQuery("requests", cursor=cursor.encode(), until=early)
    assert query.before == Cursor("2000-01-01T00:00:00.000Z", "")
    assert HistoryQuery("requests").before.at.startswith("9999")


@pytest.mark.parametrize(
    ("given", "unsuccessful"),
    [
        ({}, False),
        ({"outcome": "completed"}, False),
        ({"status": "2xx"}, False),
        ({"outcome": "failed"}, True),
        ({"status": "404"}, True),
        ({"error_code": "oops"}, True),
    ],
)
def test_whether_only_unsuccessful_requests_can_match(
    given: dict[str, Any], unsuccessful: bool
) -> None:
    assert HistoryQuery("requests", **given).unsuccessful is unsuccessful
