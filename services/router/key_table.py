"""Publishes proxy keys from SQL to Redis: one key after it changed, all keys after
Redis was emptied, and periodically all that differ.

Every router does this. Redis rejects a change based on an older version of the table,
and the router then reads SQL again, so older state never replaces newer state. SQL is
authoritative, including rows that were changed by hand."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

import structlog
from prometheus_client import Counter

from libs.common.errors import ProxyError
from libs.common.proxy_keys import Principal
from services.router.rounds import Rounds

log = structlog.get_logger()

EVERY_S = 0.5  # between checks that the table exists
COMPARE_EVERY = 20  # checks between full comparisons of SQL and Redis
TRIES = 5
FAILURES = Counter(
    "proxy_router_key_failures_total", "Rounds that could not publish proxy keys."
)


class Contended(ProxyError):
    """Other routers keep changing the table of proxy keys."""


class Rows(Protocol):
    """Proxy keys in SQL. Raises `StoreAway`."""

    async def records(self) -> dict[str, Principal]: ...

    async def record(self, id_: str) -> tuple[str, Principal | None] | None: ...


class Table(Protocol):
    """The table in Redis. Raises `RedisAway`."""

    async def version(self) -> str | None: ...

    async def read(self) -> dict[str, Principal]: ...

    async def change(
        self,
        seen: str | None,
        changed: Mapping[str, Principal],
        gone: Collection[str] = (),
    ) -> bool: ...


class KeyPublisher:
    """Keeps the table in Redis equal to SQL."""

    def __init__(self, rows: Rows, table: Table) -> None:
        self._rows = rows
        self._table = table
        self._looks = 0
        # Changes that may not have reached Redis, and how many of them were since
        # covered by a comparison.
        self._missed, self._made_up = 1, 0
        # Serializes changes here, so that only other routers can interleave.
        self._turn = asyncio.Lock()
        self._rounds = Rounds(
            FAILURES, "cannot publish proxy keys", "proxy_keys_failed", log.warning
        )

    async def run(self) -> None:
        """Runs forever. A failed round is retried by the next one."""
        while True:
            await self._rounds.attempt(self.look)
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Publishes all keys that Redis lacks. Raises `RedisAway`, `StoreAway`."""
        missed = self._missed
        due = missed > self._made_up or self._looks % COMPARE_EVERY == 0
        if due or await self._table.version() is None:
            await self._again(self._compare)
            self._made_up = missed
        self._looks += 1

    async def compare(self) -> None:
        """Publishes all keys that differ now. What fails is retried by `look`."""
        self.compare_soon()
        await self._rounds.attempt(self.look)

    def compare_soon(self) -> None:
        """Has the next `look` publish all keys that differ."""
        self._missed += 1

    async def changed(self, id_: str) -> bool:
        """Publishes one key that was changed in SQL. Returns False on failure; the next
        `look` that reaches Redis then publishes it."""
        told = False
        try:
            told = await self._rounds.attempt(
                lambda: self._again(lambda: self._tell(id_))
            )
        finally:
            if not told:
                self._missed += 1
        return told

    async def _again(self, publish: Callable[[], Awaitable[bool]]) -> None:
        async with self._turn:
            for _ in range(TRIES):
                if await publish():
                    return
        raise Contended

    async def _compare(self) -> bool:
        seen = await self._table.version()
        wanted = await self._rows.records()
        there = {} if seen is None else await self._table.read()
        changed = {name: p for name, p in wanted.items() if there.get(name) != p}
        gone = there.keys() - wanted.keys()
        if seen is not None and not changed and not gone:
            return True
        done = await self._table.change(seen, changed, gone)
        if done:
            log.info(
                "proxy keys published",
                action="proxy_keys_published",
                changed=len(changed),
                gone=len(gone),
            )
        return done

    async def _tell(self, id_: str) -> bool:
        seen = await self._table.version()
        if seen is None:
            return await self._compare()
        found = await self._rows.record(id_)
        if found is None:
            return True
        name, principal = found
        if principal is None:
            return await self._table.change(seen, {}, (name,))
        return await self._table.change(seen, {name: principal})
