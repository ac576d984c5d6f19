"""What a router does because its stack may have other shards."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from libs.common.redis.keys import DEFAULT, Keys
from libs.common.store.interface import Fetch
from services.router.shards.changes import ChangeWatcher
from services.router.shards.registration import Redis, Registration
from services.router.shards.rows import ShardRows
from services.router.shards.spending import OthersSpending

Reread = Callable[[], Awaitable[object]]
REGISTRY = ("provider", "model", "price")
KEYS = ("proxy_key", "team")


class Shards:
    def __init__(
        self,
        fetch: Fetch,
        redis: Redis,
        readers: tuple[Reread, Reread],
        keys: Keys = DEFAULT,
    ) -> None:
        """`readers`: publish the registry, and the proxy keys, as they are in SQL."""
        rows, (registry, proxy_keys) = ShardRows(fetch), readers
        kinds = dict.fromkeys(REGISTRY, registry) | dict.fromkeys(KEYS, proxy_keys)
        self._watcher = ChangeWatcher(rows, kinds)
        self._registration = Registration(rows, redis, keys)
        self.spending = OthersSpending(rows, self._registration, redis, keys)

    def problem(self) -> str | None:
        """What is wrong if another Redis has the namespace of this shard."""
        return self._registration.problem

    def has_others(self) -> bool:
        """Do other shards use the database?"""
        return self._registration.has_others

    def loops(self) -> Iterable[Coroutine[Any, Any, None]]:
        return self._watcher.run(), self._registration.run()
