import pytest
from redis.asyncio import Redis

from libs.common.errors import RedisAway
from libs.common.redis.keys import DEFAULT
from libs.common.redis.leader import LeaderLease
from libs.common.redis.shared_connection import connect
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio


async def test_one_leads_at_a_time(redis: Redis) -> None:
    one, two = (LeaderLease(redis, "router", name, 60_000) for name in ("one", "two"))
    assert await one.hold()
    assert not await two.hold()
    assert await one.hold()
    assert await LeaderLease(redis, "health", "two", 60_000).hold()


async def test_holding_renews(redis: Redis) -> None:
    lease = LeaderLease(redis, "router", "one", 60_000)
    await lease.hold()
    await redis.pexpire(DEFAULT.leader("router"), 5_000)
    await lease.hold()
    assert await redis.pttl(DEFAULT.leader("router")) > 50_000


async def test_a_silent_leader_is_followed(redis: Redis) -> None:
    assert await LeaderLease(redis, "router", "silent", 20).hold()
    await eventually(LeaderLease(redis, "router", "next", 60_000).hold)


async def test_giving_up_lets_another_lead(redis: Redis) -> None:
    one, two = (LeaderLease(redis, "router", name, 60_000) for name in ("one", "two"))
    await one.hold()
    await two.release()  # not its lease
    assert not await two.hold()
    await one.release()
    assert await two.hold()


async def test_a_taken_lease_makes_its_holder_follow(redis: Redis) -> None:
    one, two = (LeaderLease(redis, "router", name, 60_000) for name in ("one", "two"))
    await one.hold()
    await two.take()
    assert not await one.hold()
    assert await two.hold()
    assert await redis.pttl(DEFAULT.leader("router")) > 50_000


async def test_nobody_leads_without_redis() -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}/0") as client:
        with pytest.raises(RedisAway):
            await LeaderLease(client, "router", "one", 1000).hold()
