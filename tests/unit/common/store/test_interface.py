"""History queries and their cursors, before any database."""

from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from libs.common.store.interface import BadQuery, Cursor, HistoryQuery, Table

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
