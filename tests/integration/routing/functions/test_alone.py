"""The only gateway is told that nobody else waits for its releases."""

from typing import Any

import pytest

from libs.common.redis.wire import ALONE
from libs.common.routing.budgets import quota_at
from tests.integration.routing.functions.desk import Desk, resource

pytestmark = pytest.mark.asyncio


class Gateway:
    def __init__(self, desk: Desk, name: str) -> None:
        self.desk, self.name = desk, name

    async def beat(self) -> None:
        await self.desk.routing.heartbeat(self.name)

    async def release(self, **more: Any) -> Any:
        decision = await self.desk.acquire(gateway_id=self.name)
        request = f"r{self.desk.asked}"
        assert decision.resource_id
        return await self.desk.release(request, gateway_id=self.name, **more)

    async def is_alone(self) -> bool:
        return bool(await self.release() == ALONE)


@pytest.fixture
def one(desk: Desk) -> Gateway:
    return Gateway(desk, "alone-1")


@pytest.fixture
def two(desk: Desk) -> Gateway:
    return Gateway(desk, "alone-2")


async def test_two_heartbeats_must_find_no_other_gateway(
    desk: Desk, one: Gateway, two: Gateway
) -> None:
    await desk.publish(resource(1))
    assert not await one.is_alone()
    await one.beat()
    assert not await one.is_alone()
    await one.beat()
    assert await one.is_alone()
    await two.beat()
    assert not await one.is_alone()
    for _ in range(3):
        await one.beat()
        await two.beat()
        assert not await one.is_alone()
    desk.now += 5_000
    await one.beat()
    assert not await one.is_alone()
    await desk.routing.reap(4_000)
    for alone in (False, True):
        await one.beat()
        assert await one.is_alone() == alone


async def test_a_request_of_another_gateway_is_noticed_without_a_heartbeat(
    desk: Desk, one: Gateway, two: Gateway
) -> None:
    await desk.publish(resource(1))
    for _ in range(2):
        await one.beat()
    assert await one.is_alone()
    assert not await two.is_alone()
    assert not await one.is_alone()
    for alone in (False, True):
        await one.beat()
        assert await one.is_alone() == alone


async def test_releases_of_keys_with_limits_tell_it_too(
    desk: Desk, one: Gateway
) -> None:
    await desk.publish(resource(1))
    for _ in range(2):
        await one.beat()
    for tokens in (1, 2**40):  # release_v5 and release_v4
        quota = quota_at("k", None, 1_000, (), desk.now)
        assert await one.release(quota=quota, tokens=tokens) == ALONE


async def test_an_attempt_that_goes_on_tells_nothing(desk: Desk, one: Gateway) -> None:
    await desk.publish(resource(1))
    for _ in range(2):
        await one.beat()
    assert await one.release(over=False) == b""


async def test_it_begins_anew_in_an_emptied_redis(desk: Desk, one: Gateway) -> None:
    await desk.publish(resource(1))
    for _ in range(2):
        await one.beat()
    assert await one.is_alone()
    await desk.redis.flushall()
    await desk.publish(resource(1))
    for alone in (False, True):
        await one.beat()
        assert await one.is_alone() == alone
