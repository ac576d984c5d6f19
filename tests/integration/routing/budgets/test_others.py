"""What other shards spent is added to what is counted here, each row once."""

from typing import Any

import pytest

from libs.common.redis.client import ClientCaller
from libs.common.routing.budgets import KNOWN, RECOUNTING, UNKNOWN, Sum
from libs.common.routing.types import BudgetSpent, SpendUnknown
from services.router.shards.rows import Spending, Used
from services.router.shards.spending import OthersSpending
from tests.integration.routing.budgets.scene import DAY, KEY, Scene, budget

pytestmark = pytest.mark.asyncio


class Log:
    """SQL's log."""

    has_others = True

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.used: list[Used] = []
        self.spending = self.leader()

    def leader(self) -> OthersSpending:
        return OthersSpending(self, self, ClientCaller(self.scene.redis))

    async def spent_by_others(self, shard: str, seen: int) -> Spending:
        return Spending(len(self.used), self.used[seen:])

    def spend(self, tokens: int, at_ms: int | None = None, nanos: int = 0) -> None:
        at_ms = self.scene.now if at_ms is None else at_ms
        self.used.append(Used(len(self.used) + 1, KEY, at_ms, tokens, nanos))

    async def summed(self, tokens: int, newest: int | None = None) -> None:
        """SQL has this much without what is noted, up to a row of the log; by default
        all."""
        newest = len(self.used) if newest is None else newest
        for recount in (await self.scene.routing.recounts())[1]:
            noted = await self.scene.routing.note_events(recount)
            assert noted
            used = Sum(tokens, 0, newest)
            await self.scene.routing.recounted(recount, noted, used)


async def known(scene: Scene, log: Log, spent: int, **terms: Any) -> Any:
    """Limits whose spend is known."""
    quota = scene.quota(budget(**{"tokens": 100, **terms}))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await log.spending.add()
    await log.summed(spent)
    assert await scene.spent() == (spent, 0, KNOWN)
    return quota


async def test_what_is_spent_elsewhere_exhausts_a_budget(scene: Scene) -> None:
    log = Log(scene)
    quota = await known(scene, log, 10)
    await scene.acquire(quota)
    await scene.release(quota, 20)
    log.spend(40)
    await log.spending.add()
    await scene.acquire(quota)
    log.spend(30)
    await log.spending.add()
    await log.spending.add()
    assert await scene.spent() == (100, 0, KNOWN)
    # The limits were compared before with the same state.
    with pytest.raises(BudgetSpent):
        await scene.acquire(quota)
    assert [event["state"] for event in await scene.told("budget")] == ["exhausted"]


async def test_money_is_added_too(scene: Scene) -> None:
    log = Log(scene)
    quota = await known(scene, log, 0, tokens=None, nanos=50)
    await scene.acquire(quota)
    log.spend(1, nanos=50)
    await log.spending.add()
    with pytest.raises(BudgetSpent):
        await scene.acquire(quota)


async def test_rows_that_a_sum_has_are_not_added(scene: Scene) -> None:
    log = Log(scene)
    quota = await known(scene, log, 0)
    await scene.resend("r9", 5)  # in doubt
    log.spend(7)
    log.spend(8)
    await log.summed(7 + 8)
    assert await scene.spent() == (20, 0, KNOWN)
    await log.spending.add()
    assert await scene.spent() == (20, 0, KNOWN)
    log.spend(1)
    await log.spending.add()
    assert await scene.spent() == (21, 0, KNOWN)
    await scene.acquire(quota)


async def test_a_sum_that_lacks_what_was_added_is_not_taken(scene: Scene) -> None:
    log = Log(scene)
    await known(scene, log, 0)
    log.spend(7)
    await log.spending.add()
    await scene.resend("r9", 5)
    await log.summed(0, newest=0)  # of a router that led before
    assert await scene.spent() == (7, 0, RECOUNTING)
    await log.summed(7)
    assert await scene.spent() == (12, 0, KNOWN)


async def test_two_leaders_add_a_row_once(scene: Scene) -> None:
    log = Log(scene)
    await known(scene, log, 0)
    log.spend(7)
    await log.spending.add()
    await log.leader().add()
    log.spend(1)
    await log.leader().add()
    await log.spending.add()
    assert await scene.spent() == (8, 0, KNOWN)


async def test_before_rows_are_read_all_is_in_doubt(scene: Scene) -> None:
    """A second shard begins while budgets are counted."""
    log = Log(scene)
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await log.summed(10)
    log.spend(7)
    await log.spending.add()
    assert await scene.spent() == (10, 0, RECOUNTING)
    await log.summed(17)
    assert await scene.spent() == (17, 0, KNOWN)


async def test_a_window_does_not_begin_with_nothing_if_others_spent(
    scene: Scene,
) -> None:
    log = Log(scene)
    await known(scene, log, 3)
    scene.now += DAY
    log.spend(9)
    await log.spending.add()
    assert await scene.routing.spend(KEY) == [None]
    with pytest.raises(SpendUnknown):
        await scene.acquire(scene.quota(budget(tokens=100)))
    assert await scene.spent() == (0, 0, UNKNOWN)
    await log.summed(9)
    assert await scene.spent() == (9, 0, KNOWN)


async def test_what_others_spent_in_the_window_before_is_nothing_now(
    scene: Scene,
) -> None:
    log = Log(scene)
    await known(scene, log, 3)
    log.spend(9, at_ms=scene.now - DAY)
    await log.spending.add()
    assert await scene.spent() == (3, 0, KNOWN)
