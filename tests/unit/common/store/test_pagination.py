"""Rows and one more, cut to a page."""

import pytest

from libs.common.contracts.events import Row
from libs.common.store.interface import Cursor, HistoryQuery
from libs.common.store.pagination import page

AT = "2023-11-14T22:13:20.123Z"


def test_a_page_says_whether_there_is_more() -> None:
    query = HistoryQuery("sessions", limit=1)
    rows = [{"id": "b", "last_seen_at": AT}, {"id": "a", "last_seen_at": AT}]
    first = page(query, rows)
    assert first.rows == (rows[0],)
    assert first.next_cursor == Cursor(AT, "b").encode()
    assert page(query, rows[:1]).next_cursor is None
    assert page(query, []).rows == ()


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
        found = page(query, rows[begins : begins + query.limit + 1])
        seen += found.rows
        if found.next_cursor is None:
            break
        query = HistoryQuery("requests", limit=2, cursor=found.next_cursor)
    assert seen == rows
