"""What other shards spent is added once, and what Redis lost is read anew."""

import pytest

from libs.common.redis.keys import Keys
from services.router.shards.rows import SPENDING_AT_ONCE, Spending, Used
from services.router.shards.spending import EVERY_S, OthersSpending

pytestmark = pytest.mark.asyncio


class World:
    """SQL's log, and a Redis that adds up. `mark`: None: it counted nothing yet."""

    def __init__(self) -> None:
        self.log: list[Used] = []
        self.mark: int | None = 0
        self.added = 0
        self.now = 100.0
        self.has_others = True
        self.spending = OthersSpending(self, self, self, Keys("b"), lambda: self.now)

    @property
    def due(self) -> bool:
        return self.spending.due

    def spend(self, *tokens: int) -> None:
        for amount in tokens:
            self.log.append(Used(len(self.log) + 1, "key:k", 5, amount, 0))

    async def spent_by_others(self, shard: str, seen: int) -> Spending:
        assert shard == "b"
        used = self.log[seen : seen + SPENDING_AT_ONCE]
        return Spending(used[-1].number if used else len(self.log), used)

    async def call(self, command: str, name: str, *args: object) -> bytes:
        assert (command, args[:2]) == ("FCALL", (1, "{b}:catalogue:version"))
        assert name == "b_others_v1"
        seen, newest, *fields = (int(str(a)) if a != "key:k" else a for a in args[2:])
        assert isinstance(newest, int)
        if self.mark is None:
            self.mark = newest
        elif self.mark == seen:
            self.added += sum(t for t in fields[3::5] if isinstance(t, int))
            self.mark = newest
        return b"%d" % self.mark


async def test_each_row_is_added_once() -> None:
    world = World()
    world.spend(1, 2)
    await world.spending.add()
    await world.spending.add()
    world.spend(4)
    await world.spending.add()
    assert world.added == 7


async def test_a_backlog_is_added_in_parts() -> None:
    world = World()
    world.spend(*[1] * (2 * SPENDING_AT_ONCE + 5))
    await world.spending.add()
    assert world.added == 2 * SPENDING_AT_ONCE + 5


async def test_another_leader_goes_on_from_the_mark_in_redis() -> None:
    world = World()
    world.spend(1, 2)
    await world.spending.add()
    world.spend(4)
    other = OthersSpending(world, world, world, Keys("b"), lambda: 0.0)
    await other.add()
    assert world.added == 7


async def test_what_redis_lost_is_summed_by_others() -> None:
    world = World()
    world.spend(1)
    world.mark = None
    await world.spending.add()
    assert world.added == 0
    world.spend(2)
    await world.spending.add()
    assert world.added == 2


@pytest.mark.parametrize(
    ("passed_s", "has_others", "due"),
    [(0, True, False), (EVERY_S, True, True), (EVERY_S, False, False)],
)
async def test_it_is_due_each_second_if_there_are_others(
    passed_s: float, has_others: bool, due: bool
) -> None:
    world = World()
    await world.spending.add()
    world.now += passed_s
    world.has_others = has_others
    assert world.due is due
