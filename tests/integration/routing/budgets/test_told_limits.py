"""How gateways tell Redis the limits of a request, and what that costs."""

from typing import Any

import pytest

from libs.common.routing.budgets import KNOWN, RECOUNTING, Quota, quota_at, spent_of
from libs.common.routing.types import BudgetSpent, SpendUnknown
from services.router.function_library import LIBRARY
from tests.integration.routing.budgets.scene import TEAM, Scene, budget
from tests.support.values.asks import made_ask, made_release

pytestmark = pytest.mark.asyncio


async def test_redis_is_told_limits_that_it_does_not_know(scene: Scene) -> None:
    quota = scene.quota(budget(TEAM, tokens=100), rpm=5)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    await scene.acquire(quota)
    await scene.redis.execute_command("FUNCTION", "LOAD", "REPLACE", LIBRARY)
    other = quota_at("k2", None, None, (budget(TEAM, tokens=100),), scene.now)
    with pytest.raises(SpendUnknown):
        await scene.acquire(other)
    await scene.summed()
    # It ends when only the other key's limits are known: the router has to look.
    await scene.release(quota, 30, number=2)
    assert await scene.spent(TEAM) == (0, 0, RECOUNTING)
    await scene.summed(tokens=4)
    assert await scene.spent(TEAM) == (34, 0, KNOWN)
    decision = await scene.acquire(quota)
    assert spent_of(decision.left, 1) == [(34, 0)]


@pytest.mark.parametrize("named", [True, False])
async def test_releases_may_send_the_limits(scene: Scene, named: bool) -> None:
    scene.named = named
    quota = scene.quota(budget(tokens=100), budget(TEAM, tokens=90))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    for _ in range(3):
        await scene.acquire(quota)
        await scene.release(quota, 30)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota)
    assert refused.value.subject == TEAM
    assert (await scene.spent(), await scene.spent(TEAM)) == (
        (90, 0, KNOWN),
        (90, 0, KNOWN),
    )


async def test_limits_cost_no_command_in_redis(scene: Scene) -> None:
    """Counts are in the library's memory: a key with limits runs the same commands as
    one without, and one without the same functions as before."""
    quota = scene.quota(budget(tokens=10**9), rpm=10**6)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()

    async def commands(has: Quota | None) -> dict[str, int]:
        await scene.redis.config_resetstat()
        for _ in range(3):
            scene.number += 1
            request = f"r{scene.number}"
            await scene.routing.acquire(made_ask(request, quota=has))
            used: dict[str, Any] = {}
            if has:
                used = {"quota": has, "tokens": 5, "nanos": 5}
            await scene.routing.release(made_release("a1", request, **used))
        stats = await scene.redis.info("commandstats")
        return {name: stat["calls"] for name, stat in stats.items()}

    await commands(quota)  # writes the counts of this slot
    assert await commands(quota) == await commands(None)
