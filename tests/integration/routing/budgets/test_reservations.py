"""Reservations of what requests in flight may use."""

import itertools

import pytest

from libs.common.contracts.catalogue import Catalogue
from libs.common.routing.budgets import KNOWN
from libs.common.routing.types import BudgetReserved, BudgetSpent, SpendUnknown
from tests.integration.routing.budgets.scene import KEY, TEAM, Scene, budget
from tests.support.databases.function_keys import TAG
from tests.support.memory.twin import resource

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
    assert await scene.spent() == (0, 50, KNOWN)
    await scene.routing.heartbeat("gw")
    scene.now += 5_000
    assert await scene.routing.reap(1_000) == 1
    assert await scene.spent() == (0, 0, KNOWN)


async def test_reservations_of_a_team_end_with_those_of_its_key(scene: Scene) -> None:
    both = [budget(s, tokens=100, reserve=True) for s in (KEY, TEAM)]
    quota = scene.quota(*both)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    await scene.summed()
    await scene.acquire(quota, "40")
    await scene.routing.abandon("gw", ["r2"])
    assert [await scene.spent(s) for s in (KEY, TEAM)] == [(0, 0, KNOWN)] * 2


async def test_a_lease_whose_record_names_no_key(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota, "40")
    await scene.summed()
    for record in (b'{"proxy_key_id":null', b"[1,2"):
        await scene.acquire(quota, "40", lease=record)
        assert await scene.routing.abandon("gw", [f"r{scene.number}"]) == 1
        assert await scene.spent() == (0, 40, KNOWN)
        await scene.routing.sweep()
        assert await scene.spent() == (0, 0, KNOWN)


async def hold(scene: Scene, subject: str, count: int, *, leased: int) -> None:
    """Reservations, of which the first ones have leases."""
    pipe = scene.redis.pipeline(transaction=False)
    for number in range(count):
        field = f"gw/{subject}-{number}-{'x' * 40}"
        pipe.hset(f"{TAG}:reserved:{subject}", field, f"{scene.now} 1")
        if number < leased:
            pipe.hset(f"{TAG}:leases:a{1 + number % 3}", field, "{}")
    pipe.sadd(f"{TAG}:reserving", subject)
    await pipe.execute()


async def left(scene: Scene, *subjects: str) -> list[int]:
    return [await scene.redis.hlen(f"{TAG}:reserved:{s}") for s in subjects]


@pytest.mark.parametrize("most", [512, 0])  # that Redis keeps in one piece
async def test_a_sweep_goes_on_where_the_call_before_ended(
    scene: Scene, most: int
) -> None:
    sizes = "hash-max-listpack-entries"
    before = await scene.redis.config_get(sizes)
    await scene.redis.config_set(sizes, most)
    three = tuple(resource(name) for name in ("a1", "a2", "a3"))
    await scene.routing.publish(Catalogue(version="v2", resources=three), "e2")
    subjects = [f"key:{number}" for number in range(30)]
    for number, subject in enumerate(subjects):
        await hold(scene, subject, 400 if number < 6 else 2, leased=number % 2)
    seen = [sum(await left(scene, *subjects))]

    async def go_on() -> bool:
        seen.append(sum(await left(scene, *subjects)))
        await hold(scene, "key:new", 10 * len(seen), leased=10_000)
        return True

    await scene.routing.sweep(go_on=go_on)
    await scene.redis.config_set(sizes, before[sizes])
    assert len(seen) > 4
    assert max(a - b for a, b in itertools.pairwise(seen)) < 300
    assert await left(scene, *subjects) == [0, 1] * 15
    assert await left(scene, "key:new") == [10 * len(seen)]
    reserving = await scene.redis.smembers(f"{TAG}:reserving")
    assert reserving == {s.encode() for s in (*subjects[1::2], "key:new")}


async def test_many_subjects_are_swept_in_parts(scene: Scene) -> None:
    """Of releases, which leave their subject there."""
    names = [f"key:{number}" for number in range(1_000)]
    await scene.redis.sadd(f"{TAG}:reserving", *names)
    counts = []

    async def go_on() -> bool:
        counts.append(await scene.redis.scard(f"{TAG}:reserving"))
        return True

    await scene.routing.sweep(go_on=go_on)
    assert len(counts) > 2
    await scene.routing.sweep()  # what SSCAN missed because the set became small
    assert await scene.redis.exists(f"{TAG}:reserving") == 0


async def test_a_sweep_that_is_ended(scene: Scene) -> None:
    await hold(scene, KEY, 1_000, leased=0)

    async def no() -> bool:
        return False

    await scene.routing.sweep(go_on=no)
    assert 500 < (await left(scene, KEY))[0] < 1_000
    await scene.routing.sweep()
    assert await left(scene, KEY) == [0]


async def test_reservations_are_restored(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, reserve=True))
    for _ in range(2):  # repeated, it changes nothing
        await scene.routing.reserve("gw", quota.text, [("r1", 60), ("r2", 10)])
    await scene.summed(tokens=20)
    with pytest.raises(BudgetReserved):
        await scene.acquire(quota, "11")
    await scene.acquire(quota, "10")
    assert await scene.spent() == (20, 80, KNOWN)
