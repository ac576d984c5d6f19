"""What budgets were spent on, according to SQL."""

import json
from collections.abc import Collection, Iterable

from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.routing.budgets import Sum
from libs.common.store.interface import Fetch
from libs.common.store.rows import iso_ms


class SpendRows:
    """Methods raise `StoreAway`. A subject is `key:<id>` or `team:<id>`; windows are in
    Unix milliseconds."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def spent(
        self, subject: str, start_ms: int, end_ms: int, without: Iterable[str]
    ) -> Sum:
        """What is stored of a window, without these requests."""
        kind, _, id_ = subject.partition(":")
        whose = {"key": None, "team": None, kind: id_, "subject": subject}
        values = {**whose, **_window(start_ms, end_ms), "ids": _ids(without)}
        (row,) = await self._fetch("spend_of", values)
        return Sum(row["tokens"], row["nanos"], row["newest"])

    async def stored(
        self, ids: Collection[str], start_ms: int, end_ms: int
    ) -> set[str]:
        """Which of these requests are stored, of those in a window."""
        if not ids:
            return set()
        values = {"ids": _ids(ids), **_window(start_ms, end_ms)}
        return {row["id"] for row in await self._fetch("stored_requests", values)}


def _window(start_ms: int, end_ms: int) -> dict[str, str]:
    last = END_OF_TIME_MS - 1  # of the year 9999
    return {"starts": iso_ms(start_ms), "ends": iso_ms(min(end_ms, last))}


def _ids(ids: Iterable[str]) -> str:
    return json.dumps(list(ids))
