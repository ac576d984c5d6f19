"""Adds what other shards spent of budgets to what Redis counts here.

Each batch that ingest stores leaves rows in a log in SQL, if there are other shards.
They have numbers in the order of their commits, so a sum of SQL and the rows after it
have each request once."""

import time
from collections.abc import Callable
from typing import Protocol

from libs.common.redis.keys import DEFAULT, Keys
from services.router.shards.registration import Redis
from services.router.shards.rows import SPENDING_AT_ONCE, Spending

EVERY_S = 1.0
BATCHES = 100  # of a round


class Rows(Protocol):
    """Raises `StoreAway`."""

    async def spent_by_others(self, shard: str, seen: int) -> Spending: ...


class Shards(Protocol):
    @property
    def has_others(self) -> bool: ...


class OthersSpending:
    """Of one router at a time. Raises `RedisAway`."""

    def __init__(
        self,
        rows: Rows,
        shards: Shards,
        redis: Redis,
        keys: Keys = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows = rows
        self._shards = shards
        self._redis = redis
        self._keys = keys
        self._clock = clock
        self._seen = 0
        self._next = 0.0

    @property
    def due(self) -> bool:
        return self._shards.has_others and self._clock() >= self._next

    async def add(self) -> None:
        """Adds all that is stored. Raises `StoreAway`."""
        self._next = self._clock() + EVERY_S
        for _ in range(BATCHES):
            if not await self._add_some():
                return

    async def _add_some(self) -> bool:
        """Returns whether there is more."""
        shard = self._keys.namespace
        newest, used = await self._rows.spent_by_others(shard, self._seen)
        flat = [field for row in used for field in row]
        function, key = self._keys.function("others_v1"), self._keys.catalogue_version()
        command = ("FCALL", function, 1, key, self._seen, newest, *flat)
        reply = int(await self._redis.call(*command))
        more = reply != newest or len(used) == SPENDING_AT_ONCE
        self._seen = reply
        return more
