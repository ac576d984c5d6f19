"""Which connections are checked before their use."""

import socket
from collections.abc import Iterator

import pytest

from libs.common.store.postgres.idle_check import CHECK_EVERY_S, IdleCheck

pytestmark = pytest.mark.asyncio


class Connection:
    def __init__(self) -> None:
        self._ours, self.server = socket.socketpair()

    def fileno(self) -> int:
        return self._ours.fileno()

    def close(self) -> None:
        self._ours.close()
        self.server.close()


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.checked: list[Connection] = []
        self.gone = False
        self.check = IdleCheck(self._answers, lambda: self.now)
        self.one, self.other = Connection(), Connection()

    async def _answers(self, connection: Connection) -> None:
        if self.gone:
            raise OSError("closed")
        self.checked.append(connection)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.one.close()
    made.other.close()


async def test_a_connection_is_checked_once_in_a_while(world: World) -> None:
    await world.check(world.one)
    await world.check(world.one)
    await world.check(world.other)
    assert world.checked == [world.one, world.other]
    world.now += CHECK_EVERY_S
    await world.check(world.one)
    assert world.checked == [world.one, world.other, world.one]


async def test_one_that_its_server_closed_is_checked_at_once(world: World) -> None:
    await world.check(world.one)
    world.one.server.close()
    world.gone = True
    with pytest.raises(OSError, match="closed"):
        await world.check(world.one)


async def test_one_that_did_not_answer_is_checked_again(world: World) -> None:
    world.gone = True
    with pytest.raises(OSError, match="closed"):
        await world.check(world.one)
    world.gone = False
    await world.check(world.one)
    assert world.checked == [world.one]
