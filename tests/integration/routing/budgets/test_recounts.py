"""What was spent is in doubt: the router sums it anew, and each request counts once."""

import pytest

from libs.common.routing.budgets import KNOWN, LEFT, RECOUNTING, UNKNOWN, Noted, Sum
from libs.common.routing.types import BudgetReserved, SpendUnknown
from services.router.function_library import LIBRARY
from tests.integration.routing.budgets.scene import DAY, Scene, budget

pytestmark = pytest.mark.asyncio


async def test_what_is_sent_again_counts_once(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    await scene.acquire(quota)
    await scene.release(quota, 20)
    await scene.resend("r2", 20)  # the release was counted, but its reply was lost
    await scene.resend("r9", 5)  # Redis was away when it ended
    assert await scene.spent() == (20, 0, RECOUNTING)
    await scene.acquire(quota)  # at least that much is known
    await scene.release(quota, 7)
    _, (recount,) = await scene.routing.recounts()
    # The stream has all of them, SQL r2 and one that Redis knows nothing of.
    streamed = [("r2", 20, 0), ("r8", 1, 0)]
    quiet = await scene.routing.note_events(recount, streamed, tell=False)
    assert quiet == Noted(2, set())
    noted = await scene.routing.note_events(recount)
    assert noted == Noted(2, {"r2", "r3", "r8", "r9"})
    assert await scene.routing.recounted(recount, noted, Sum(1_000, 0))
    assert await scene.spent() == (1_000 + 20 + 5 + 7 + 1, 0, KNOWN)
    assert (await scene.routing.recounts())[1] == []
    assert not await scene.routing.recounted(recount, noted, Sum(5, 0))
    assert await scene.routing.note_events(recount) is None


async def test_an_older_sum_is_not_taken(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    _, (older,) = await scene.routing.recounts()
    await scene.summed()
    await scene.resend("r9", 5)
    _, (newer,) = await scene.routing.recounts()
    assert older.since != newer.since
    noted = await scene.routing.note_events(newer)
    assert noted == Noted(1, {"r9"})
    assert not await scene.routing.recounted(older, noted, Sum(0, 0))
    assert await scene.routing.recounted(newer, noted, Sum(0, 0))
    assert await scene.spent() == (5, 0, KNOWN)


async def test_what_is_sent_again_may_be_of_the_next_window(scene: Scene) -> None:
    before = scene.quota(budget(tokens=10))
    with pytest.raises(SpendUnknown):
        await scene.acquire(before)
    await scene.summed()
    scene.now += DAY
    await scene.resend("r9", 5)  # Redis was away at midnight
    with pytest.raises(SpendUnknown):
        await scene.acquire(scene.quota(budget(tokens=10)))


async def test_a_changed_window_under_a_running_request(scene: Scene) -> None:
    day, week = (
        scene.quota(budget(tokens=10)),
        scene.quota(budget(window="week", tokens=9)),
    )
    with pytest.raises(SpendUnknown):
        await scene.acquire(day)
    await scene.summed()
    await scene.acquire(day)
    running = scene.number
    with pytest.raises(SpendUnknown):
        await scene.acquire(week)
    await scene.summed()
    await scene.release(day, 3, number=running)
    assert await scene.spent() == (0, 0, RECOUNTING)  # the router finds its event


async def test_another_server_is_in_doubt(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=10))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    await scene.routing.doubt()
    assert await scene.spent() == (0, 0, RECOUNTING)
    await scene.acquire(quota)


async def test_a_new_library_sums_anew_and_keeps_reservations(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True), rpm=5)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    await scene.summed()
    await scene.acquire(quota, "40")
    await scene.redis.execute_command("FUNCTION", "LOAD", "REPLACE", LIBRARY)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    assert await scene.spent() == (0, 40, UNKNOWN)
    await scene.summed(tokens=30)
    with pytest.raises(BudgetReserved):
        await scene.acquire(quota, "40")
    # The counts of the minute were written.
    assert LEFT[1].unpack_from((await scene.acquire(quota, "30")).left) == (2, 0, 30, 0)
