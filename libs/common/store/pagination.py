"""Cuts rows to a page. Pure."""

from collections.abc import Sequence

from libs.common.contracts.events import Row
from libs.common.store.interface import Cursor, HistoryQuery, Page


def page(query: HistoryQuery, rows: Sequence[Row]) -> Page:
    """Build a page. `rows` has one row more than the limit if there are older rows."""
    shown = tuple(rows[: query.limit])
    if len(rows) <= query.limit:
        return Page(shown, None)
    last = shown[-1]
    return Page(shown, Cursor(last[query.time_column], last["id"]).encode())
