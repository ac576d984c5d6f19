"""The leader lease over a scripted Redis. tests/integration/router/test_leader.py runs
the scripts on a real one."""

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from libs.common.errors import RedisAway
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.leader import HOLD, RELEASE, LeaderLease

pytestmark = pytest.mark.asyncio


class Redis:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[tuple[Any, ...]] = []

    async def eval(self, *call: Any) -> Any:
        self.calls.append(call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def set(self, *call: Any, px: int) -> Any:
        return await self.eval("SET", *call, px)

    async def get(self, *call: Any) -> Any:
        return await self.eval("GET", *call)


@pytest.mark.parametrize(("answer", "leads"), [(1, True), (0, False)])
async def test_holding_says_whether_we_lead(answer: int, leads: bool) -> None:
    redis = Redis(answer)
    assert await LeaderLease(redis, "router", "me", 4000).hold() is leads
    assert redis.calls == [(HOLD, 1, DEFAULT.leader("router"), "me", 4000)]


async def test_each_stack_has_its_leaders() -> None:
    redis, other = Redis(1), Keys("b_2")
    await LeaderLease(redis, "router", "me", 4000, other).hold()
    assert redis.calls == [(HOLD, 1, other.leader("router"), "me", 4000)]


async def test_a_lease_is_given_back_by_its_holder() -> None:
    redis = Redis(1)
    await LeaderLease(redis, "health", "me", 4000).release()
    assert redis.calls == [(RELEASE, 1, DEFAULT.leader("health"), "me")]


async def test_a_lease_is_taken_from_its_holder() -> None:
    redis = Redis(b"OK")
    await LeaderLease(redis, "router", "me", 4000).take()
    assert redis.calls == [("SET", DEFAULT.leader("router"), "me", 4000)]


@pytest.mark.parametrize("error", [RedisConnectionError("gone"), OSError("gone")])
async def test_a_redis_that_is_away(error: Exception) -> None:
    lease = LeaderLease(Redis(error), "router", "me", 4000)
    for call in (lease.hold, lease.take, lease.release):
        with pytest.raises(RedisAway, match="gone"):
            await call()


@pytest.mark.parametrize(("answer", "holder"), [(None, None), (b"one", "one")])
async def test_anybody_may_ask_who_leads(
    answer: bytes | None, holder: str | None
) -> None:
    redis = Redis(answer)
    assert await LeaderLease(redis, "health", "", 0).holder() == holder
    assert redis.calls == [("GET", DEFAULT.leader("health"))]


async def test_while_redis_is_away_nobody_knows_who_leads() -> None:
    with pytest.raises(RedisAway):
        await LeaderLease(Redis(RedisConnectionError()), "health", "", 0).holder()
