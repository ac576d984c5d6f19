"""Who does the work that must happen once: a lease in Redis, by role.

A leader that dies or loses Redis is followed by another after `ttl_ms`; call
`hold` a few times within that span."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any, cast

from redis.exceptions import RedisError

from libs.common.errors import RedisAway
from libs.common.redis import keys
from libs.common.redis.factory import cause_of

HOLD = Path(__file__).with_name("leader.lua").read_text()
RELEASE = Path(__file__).with_name("leader_release.lua").read_text()


class LeaderLease:
    def __init__(self, redis: Any, role: str, holder: str, ttl_ms: int) -> None:
        self._redis = redis
        self._key = keys.leader(role)
        self._holder = holder
        self._ttl_ms = ttl_ms

    async def hold(self) -> bool:
        """Take the lease or renew ours; True while we lead. Raises `RedisAway`."""
        return await self._eval(HOLD, self._holder, self._ttl_ms)

    async def release(self) -> None:
        """Let a successor start at once. Raises `RedisAway`."""
        await self._eval(RELEASE, self._holder)

    async def _eval(self, script: str, *args: str | int) -> bool:
        try:
            reply = self._redis.eval(script, 1, self._key, *args)
            return bool(await cast(Awaitable[int], reply))
        except (RedisError, OSError) as error:
            raise RedisAway(f"Redis did not answer: {cause_of(error)}.") from error
