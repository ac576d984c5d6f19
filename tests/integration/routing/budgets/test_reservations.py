"""Reservations of what requests in flight may use."""

import pytest

from libs.common.routing.budgets import KNOWN
from libs.common.routing.types import BudgetReserved, BudgetSpent, SpendUnknown
from tests.integration.routing.budgets.scene import Scene, budget

pytestmark = pytest.mark.asyncio


async def test_reservations_leave_no_overshoot(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    await scene.summed()
    await scene.acquire(quota, "40")
    first = scene.number
    await scene.acquire(quota, "60")
    assert await scene.spent() == (0, 100, KNOWN)
    with pytest.raises(BudgetReserved):
        await scene.acquire(quota, "1")
    await scene.release(quota, 30, number=first)
    assert await scene.spent() == (30, 60, KNOWN)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota, "71")
    assert (refused.value.which, refused.value.left) == ("rest", 70)
    await scene.acquire(quota, "10")


async def test_reservations_of_crashed_gateways_end(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    await scene.summed()
    await scene.acquire(quota, "40")
    await scene.acquire(quota, "50")
    await scene.routing.reap(1_000)
    assert await scene.spent() == (0, 90, KNOWN)
    await scene.routing.abandon("gw", ["r2"])
    await scene.routing.reap(1_000)
    assert await scene.spent() == (0, 50, KNOWN)


async def test_reservations_are_restored(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True))
    for _ in range(2):  # repeated, it changes nothing
        await scene.routing.reserve("gw", quota.text, [("r1", 60), ("r2", 10)])
    await scene.summed(tokens=20)
    with pytest.raises(BudgetReserved):
        await scene.acquire(quota, "11")
    await scene.acquire(quota, "10")
    assert await scene.spent() == (20, 80, KNOWN)
