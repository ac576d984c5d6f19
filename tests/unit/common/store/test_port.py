"""Queries, cursors, pages and migrations, before any database."""

from datetime import UTC, datetime
from typing import Any

import pytest

from libs.common.store.migrate import Migration, known_migrations, pending
from libs.common.store.pages import page
from libs.common.store.port import BadQuery, Cursor, HistoryQuery, SchemaTooNew
from libs.common.store.rows import instant, iso, milliseconds
from tests.support.telemetry import T0_MS

AT = "2023-11-14T22:13:20.123Z"
ONE, TWO = Migration(1, "0001_a", ""), Migration(2, "0002_b", "")


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
    ],
)
def test_nonsense_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadQuery, match=told):
        HistoryQuery(**{"table": "requests", **given})


@pytest.mark.parametrize("id_", ["req-1", "a|b", "ü", ""])
def test_a_cursor_survives_the_journey(id_: str) -> None:
    cursor = Cursor(AT, id_)
    assert HistoryQuery("requests", cursor=cursor.encode()).after == cursor


def test_a_page_says_whether_there_is_more() -> None:
    query = HistoryQuery("sessions", limit=1)
    rows = [{"id": "b", "last_seen_at": AT}, {"id": "a", "last_seen_at": AT}]
    first = page(query, rows)
    assert first.rows == (rows[0],)
    assert first.next_cursor == Cursor(AT, "b").encode()
    assert page(query, rows[:1]).next_cursor is None
    assert page(query, []).rows == ()


def test_times_are_exact() -> None:
    assert iso(instant(T0_MS)) == AT
    assert milliseconds(instant(T0_MS)) == T0_MS
    assert milliseconds(datetime.fromisoformat(AT)) == T0_MS
    assert iso(datetime(2024, 1, 1, tzinfo=UTC)) == "2024-01-01T00:00:00.000Z"


def test_migrations_go_forward() -> None:
    assert pending([ONE, TWO], 0) == [ONE, TWO]
    assert pending([ONE, TWO], 1) == [TWO]
    assert pending([ONE, TWO], 2) == []


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(SchemaTooNew, match="has schema 3, this version knows 2"):
        pending([ONE, TWO], 3)


def test_both_databases_have_the_same_migrations() -> None:
    names = [[m.name for m in known_migrations(d)] for d in ("postgres", "sqlite")]
    assert names[0] == names[1]
