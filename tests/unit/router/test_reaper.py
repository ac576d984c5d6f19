"""When dead gateways are reaped, and when not."""

import pytest

from libs.common.errors import NoCatalogue, RedisAway
from services.router.reaper import Reaper

pytestmark = pytest.mark.asyncio


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.leads = True
        self.error: Exception | None = None
        self.reaped: list[int] = []
        self.strays: list[bool] = []

    async def hold(self) -> bool:
        if self.error:
            raise self.error
        return self.leads

    async def reap(self, silent_ms: int, *, strays: bool = False) -> int:
        self.reaped.append(silent_ms)
        self.strays.append(strays)
        return 3

    def clock(self) -> float:
        return self.now

    def reaper(self) -> Reaper:
        return Reaper(self, self, 5000, self.clock)


async def test_the_leader_reaps() -> None:
    world = World()
    assert await world.reaper().step() == 3
    assert world.reaped == [5000]


async def test_strays_are_looked_for_now_and_then() -> None:
    world = World()
    reaper = world.reaper()
    for _ in range(60):
        await reaper.step()
    assert [n for n, looked in enumerate(world.strays) if looked] == [0, 30]


async def test_others_stand_by() -> None:
    world = World()
    world.leads = False
    assert await world.reaper().step() == 0
    assert world.reaped == []


async def test_after_redis_was_away_gateways_get_their_whole_time() -> None:
    world = World()
    reaper = world.reaper()
    world.error = RedisAway()
    assert await reaper.step() == 0
    world.error = None
    world.now += 4.9
    assert await reaper.step() == 0
    world.now += 0.2
    assert await reaper.step() == 3


async def test_before_there_is_a_catalogue_there_is_nothing_to_reap() -> None:
    world = World()
    world.error = NoCatalogue()
    assert await world.reaper().step() == 0
