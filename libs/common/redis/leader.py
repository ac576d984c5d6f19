"""Leader election by a lease in Redis, for work that one replica of a role does.

Call `hold` several times within `ttl_ms`. When a leader crashes or loses Redis, another
takes over after that time."""

from pathlib import Path
from typing import Any, Protocol

from libs.common.redis.client import translated
from libs.common.redis.keys import DEFAULT, Keys

HOLD = Path(__file__).with_name("leader.lua").read_text()
RELEASE = Path(__file__).with_name("leader_release.lua").read_text()


class Leadership(Protocol):
    async def hold(self) -> bool: ...


class LeaderLease:
    def __init__(
        self, redis: Any, role: str, holder: str, ttl_ms: int, keys: Keys = DEFAULT
    ) -> None:
        self._redis = redis
        self._key = keys.leader(role)
        self._holder = holder
        self._ttl_ms = ttl_ms

    async def hold(self) -> bool:
        """Take or renew the lease; returns whether we lead. Raises `RedisAway`."""
        return await self._eval(HOLD, self._holder, self._ttl_ms)

    async def holder(self) -> str | None:
        """Who leads; None if nobody does. Raises `RedisAway`."""
        with translated():
            held = await self._redis.get(self._key)
        return None if held is None else held.decode()

    async def take(self) -> None:
        """Take the lease from its holder, which then follows. Raises `RedisAway`."""
        with translated():
            await self._redis.set(self._key, self._holder, px=self._ttl_ms)

    async def release(self) -> None:
        """End the lease, so that a successor can start. Raises `RedisAway`."""
        await self._eval(RELEASE, self._holder)

    async def _eval(self, script: str, *args: str | int) -> bool:
        with translated():
            return bool(await self._redis.eval(script, 1, self._key, *args))
