"""Says in SQL that this shard uses the database, and which others do."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog
from prometheus_client import Counter

from libs.common.redis.keys import DEFAULT, Keys
from services.router.rounds import Rounds
from services.router.shards.rows import Shard

log = structlog.get_logger()

EVERY_S = 10.0
AGAIN_S = 1.0  # after a failure, as before the schema is migrated
LIVES = timedelta(seconds=3 * EVERY_S)
SKEW = timedelta(seconds=EVERY_S)  # of the routers' clocks, at most
FAILURES = Counter(
    "proxy_router_shard_failures_total",
    "Rounds that could not say that this shard uses the database.",
)


class Rows(Protocol):
    """Raises `StoreAway`."""

    async def note(self, name: str, instance: str, now: datetime) -> list[Shard]: ...


class Redis(Protocol):
    """Raises `RedisAway`."""

    async def call(self, *command: Any) -> Any: ...


def _now() -> datetime:
    return datetime.now(UTC)


class Registration:
    """Of the shard of this router. `shards`: all that were seen in the last day."""

    def __init__(
        self,
        rows: Rows,
        redis: Redis,
        keys: Keys = DEFAULT,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._rows = rows
        self._redis = redis
        self._keys = keys
        self._now = now
        self._instance = ""
        self._rounds = Rounds(
            FAILURES, "shard not registered", "shard_unregistered", log.warning
        )
        self.shards: Sequence[Shard] = ()

    @property
    def has_others(self) -> bool:
        """Do other shards use the database?"""
        return bool(self._names - {self._keys.namespace})

    @property
    def _names(self) -> set[str]:
        return {shard.name for shard in self.shards}

    @property
    def problem(self) -> str | None:
        """What is wrong if the routers of two Redis servers have this namespace."""
        ours = [s for s in self.shards if s.name == self._keys.namespace]
        mine = next((s for s in ours if s.instance == self._instance), None)
        if mine is None:
            return None
        # Redis was emptied if the other one was not seen since this one is there.
        later = datetime.fromisoformat(mine.since) + SKEW
        recent = self._now() - LIVES
        for other in ours:
            seen_at = datetime.fromisoformat(other.seen_at)
            if other is not mine and seen_at > max(later, recent):
                return (
                    "the routers of another Redis use this database with the same "
                    f"PROXY_REDIS_NAMESPACE, {self._keys.namespace}"
                )
        return None

    async def run(self) -> None:
        """Runs forever. A failed round is retried by the next one."""
        while True:
            done = await self._rounds.attempt(self.note)
            await asyncio.sleep(EVERY_S if done else AGAIN_S)

    async def note(self) -> None:
        """Raises `RedisAway`, `StoreAway`."""
        before, known = self.problem, self._names
        self._instance = await self._name_of_redis()
        name = self._keys.namespace
        self.shards = await self._rows.note(name, self._instance, self._now())
        for other in sorted(self._names - known - {name}):
            log.info(
                "another shard uses the database", action="shard_found", shard=other
            )
        if self.problem is not None and before is None:
            log.error(self.problem, action="namespace_taken")

    async def _name_of_redis(self) -> str:
        """A random name that Redis keeps."""
        key = self._keys.instance()
        found = await self._redis.call("GET", key)
        if found is None:
            await self._redis.call("SET", key, secrets.token_hex(8), "NX")
            found = await self._redis.call("GET", key)
        return str(found or b"", "ascii")
