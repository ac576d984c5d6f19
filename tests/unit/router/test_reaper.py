"""When dead gateways are reaped, and when not."""

from collections.abc import Callable
from functools import partial

import pytest
from structlog.testing import capture_logs

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.control import GoOn
from services.router.reaper import REAPED, Reaper

pytestmark = pytest.mark.asyncio


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.leads = True
        self.error: Exception | None = None
        self.reaped: list[int] = []
        self.strays: list[bool] = []
        self.parts = 1  # of a search
        self.swept = 0
        self.holds = 0

    async def hold(self) -> bool:
        if self.error:
            raise self.error
        self.holds += 1
        return self.leads

    async def reap(
        self,
        silent_ms: int,
        *,
        strays: bool = False,
        go_on: GoOn,
        ended: Callable[[int], None],
    ) -> int:
        self.reaped.append(silent_ms)
        self.strays.append(strays)
        return 3 * await self._parts(go_on, partial(ended, 3))

    async def sweep(self, *, go_on: GoOn) -> None:
        self.swept += await self._parts(go_on)

    async def _parts(self, go_on: GoOn, note: Callable[[], None] = lambda: None) -> int:
        done = 1
        note()
        while done < self.parts and await go_on():
            done += 1
            note()
        return done

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
    assert world.swept == 2


async def test_it_leads_as_long_as_a_search_takes() -> None:
    world = World()
    world.parts = 3
    assert await world.reaper().step() == 9
    assert (world.swept, world.holds) == (3, 1 + 2 + 2)


async def test_a_search_ends_when_another_router_leads() -> None:
    world = World()
    world.parts = 3
    reaper = world.reaper()

    async def follow(
        *_: object, go_on: GoOn, ended: Callable[[int], None], **__: object
    ) -> int:
        world.leads = False
        return await world._parts(go_on, partial(ended, 1))

    world.reap = follow  # type: ignore[method-assign]
    assert await reaper.step() == 1
    assert world.swept == 1


async def test_what_ended_counts_although_redis_is_lost_then() -> None:
    world = World()

    async def lost(*, go_on: GoOn) -> None:
        raise RedisAway

    world.sweep = lost  # type: ignore[method-assign]
    before = REAPED._value.get()
    assert await world.reaper().step() == 0
    assert REAPED._value.get() - before == 3


async def test_what_a_part_ended_counts_although_the_next_one_fails() -> None:
    world = World()
    world.parts = 2
    reaper = world.reaper()
    hold = world.hold

    async def once() -> bool:
        held = await hold()
        world.error = RedisAway()
        return held

    world.hold = once  # type: ignore[method-assign]
    before = REAPED._value.get()
    with capture_logs() as logs:
        assert await reaper.step() == 0
    assert REAPED._value.get() - before == 3
    assert [log["leases"] for log in logs if log["action"] == "leases_reaped"] == [3]


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
