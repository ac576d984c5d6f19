"""Checks that the router orders from the health service, through Redis: only the health
service connects to upstreams."""

from typing import Any

from redis.asyncio import Redis

from libs.common.redis.client import translated
from libs.common.redis.keys import DEFAULT, Keys

WAIT_S = 1.0  # less than the client's answer timeout
KEPT_S = 60  # for orders and answers that nobody fetches


class Orders:
    """The router calls `place`, `fetch` and `withdraw`; the health service calls `take`
    and `answer`. All raise `RedisAway`. An order is an id, then optionally a space and
    arguments."""

    def __init__(self, redis: Redis, keys: Keys = DEFAULT) -> None:
        self._redis: Any = redis
        self._keys = keys

    async def place(self, order: str) -> None:
        with translated():
            await self._redis.lpush(self._keys.check_orders(), order)
            await self._redis.expire(self._keys.check_orders(), KEPT_S)

    async def fetch(self, order: str) -> bytes | None:
        """Wait up to WAIT_S for the answer."""
        with translated():
            found = await self._redis.blpop(self._answer_key(order), WAIT_S)
        return found[1] if found else None

    async def withdraw(self, order: str) -> bool:
        """Cancel an order; False when it was taken already."""
        with translated():
            return bool(await self._redis.lrem(self._keys.check_orders(), 0, order))

    async def take(self) -> str | None:
        """Wait up to WAIT_S for the oldest order."""
        with translated():
            found = await self._redis.brpop(self._keys.check_orders(), WAIT_S)
        return found[1].decode() if found else None

    async def answer(self, order: str, answer: str) -> None:
        with translated():
            await self._redis.lpush(self._answer_key(order), answer)
            await self._redis.expire(self._answer_key(order), KEPT_S)

    def _answer_key(self, order: str) -> str:
        return self._keys.check_answer(order.partition(" ")[0])
