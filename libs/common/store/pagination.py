"""Rows and one more, cut to a page. Pure."""

from collections.abc import Sequence

from libs.common.contracts.events import Row
from libs.common.store.interface import Cursor, HistoryQuery, Page


def page(query: HistoryQuery, rows: Sequence[Row]) -> Page:
    """`rows` holds one more than the limit when there are older ones."""
    shown = tuple(rows[: query.limit])
    if len(rows) <= query.limit:
        return Page(shown, None)
    last = shown[-1]
    return Page(shown, Cursor(last[query.time_column], last["id"]).encode())
