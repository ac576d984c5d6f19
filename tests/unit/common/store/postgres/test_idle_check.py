"""Which connections are checked before their use."""

import pytest

from libs.common.store.postgres.idle_check import CHECK_EVERY_S, IdleCheck

pytestmark = pytest.mark.asyncio


class Connection:
    pass


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.checked: list[Connection] = []
        self.gone = False
        self.check = IdleCheck(self._answers, lambda: self.now)

    async def _answers(self, connection: Connection) -> None:
        if self.gone:
            raise OSError("closed")
        self.checked.append(connection)


async def test_a_connection_is_checked_once_in_a_while() -> None:
    world, one, other = World(), Connection(), Connection()
    await world.check(one)
    await world.check(one)
    await world.check(other)
    assert world.checked == [one, other]
    world.now += CHECK_EVERY_S
    await world.check(one)
    assert world.checked == [one, other, one]


async def test_one_that_did_not_answer_is_checked_again() -> None:
    world, one = World(), Connection()
    world.gone = True
    with pytest.raises(OSError, match="closed"):
        await world.check(one)
    world.gone = False
    await world.check(one)
    assert world.checked == [one]
