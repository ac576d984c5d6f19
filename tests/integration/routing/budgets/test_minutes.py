"""Limits of requests and tokens per minute."""

import pytest

from libs.common.redis.client import ClientCaller
from libs.common.routing.budgets import LEFT, quota_at
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import KeyLimited, NoCapacity
from tests.integration.routing.budgets.scene import STREAM, T0, Scene, event_of
from tests.support.values.asks import made_ask, made_release

pytestmark = pytest.mark.asyncio


async def test_requests_of_a_minute(scene: Scene) -> None:
    quota = scene.quota(rpm=2)
    assert LEFT[0].unpack_from((await scene.acquire(quota)).left) == (1, 0)
    # What gets no lease does not count.
    with pytest.raises(NoCapacity):
        await scene.acquire(quota, tried=("a1",))
    await scene.acquire(quota)
    with pytest.raises(KeyLimited) as refused:
        await scene.acquire(quota)
    assert refused.value.which == "requests"
    assert 60_000 < refused.value.wait_ms <= 65_000
    scene.now += refused.value.wait_ms
    await scene.acquire(quota)


async def test_limits_of_a_minute_by_the_clock_of_redis(scene: Scene) -> None:
    routing = RoutingFunctions(ClientCaller(scene.redis), STREAM)
    quota = quota_at("k", 40, 1_000, (), T0)
    for number in range(40):
        request = f"q{number}"
        ask = made_ask(request, quota=quota, tells=number == 0)
        decision = await routing.acquire(ask)
        assert LEFT[0].unpack_from(decision.left) == (number + 1, 10 * number)
        used = {"quota": quota, "tokens": 10}
        event = event_of(request, T0, 10, 0)
        await routing.release(made_release("a1", request, event=event, **used))
    with pytest.raises(KeyLimited) as refused:
        await routing.acquire(made_ask("last", quota=quota))
    assert refused.value.which == "requests"
    assert 0 < refused.value.wait_ms <= 65_000


async def test_gateways_of_the_version_before_count_together(scene: Scene) -> None:
    quota = scene.quota(rpm=2)
    await scene.acquire(quota)
    call = "FCALL", "rpx_limits_v1", 1, "{rpx}:spent:k", "k", 2, "", scene.now
    assert await scene.redis.execute_command(*call) == []
    with pytest.raises(KeyLimited):
        await scene.acquire(quota)
    assert (await scene.redis.execute_command(*call))[0] == b"requests"


async def test_what_a_minute_counts_can_be_read(scene: Scene) -> None:
    quota = quota_at("k", 5, 100, (), scene.now)
    await scene.acquire(quota)
    await scene.release(quota, 7)
    assert await scene.routing.used("k", "other") == [(1, 7), (0, 0)]
    scene.now += 66_000
    assert await scene.routing.used("k") == [(0, 0)]
