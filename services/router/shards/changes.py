"""Notices what the admin API of any router changed in SQL, of whatever shard."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog
from prometheus_client import Counter

from services.router.rounds import Rounds

log = structlog.get_logger()

EVERY_S = 0.5
FAILURES = Counter(
    "proxy_router_changes_failures_total",
    "Rounds that could not read what other routers changed.",
)
Reread = Callable[[], Awaitable[object]]


class Rows(Protocol):
    """Raises `StoreAway`."""

    async def changes(self, seen: int) -> tuple[int, set[str]]: ...


class ChangeWatcher:
    """Has what depends on changed objects read anew. What is published is compared with
    SQL, so a change that this router made itself does nothing here."""

    def __init__(self, rows: Rows, readers: Mapping[str, Reread]) -> None:
        """`readers`: by the type of the objects; they retry what fails."""
        self._rows = rows
        self._readers = readers
        self._seen: int | None = None
        self._rounds = Rounds(
            FAILURES, "changes not read", "changes_failed", log.warning
        )

    async def run(self) -> None:
        """Runs forever. A failed round is retried by the next one."""
        while True:
            await self._rounds.attempt(self.look)
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Raises `StoreAway`."""
        newest, kinds = await self._rows.changes(self._seen or 0)
        if self._seen is None:
            kinds = set(self._readers)  # some of them may have begun before
        due = {self._readers[kind] for kind in kinds if kind in self._readers}
        for read in due:
            await read()
        self._seen = newest
