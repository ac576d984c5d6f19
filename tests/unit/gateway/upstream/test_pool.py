"""Which request gets which connection, in histories of every kind."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.upstream.errors import NoFreeConnection, NotSent
from services.gateway.upstream.pool import Pool

IDLE_S = 55.0


class Connection:
    """As much of a connection as a pool needs."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class World:
    """A pool, its users, and a clock that the test sets."""

    def __init__(self, limit: int) -> None:
        self.now = 0.0
        self.limit = limit
        self.pool: Pool[Connection] = Pool(
            limit, IDLE_S, Connection.close, lambda: self.now
        )
        self.users: list[User] = []
        self.connections: list[Connection] = []

    def comes(self, within_s: float = 60) -> "User":
        user = User(self, within_s)
        self.users.append(user)
        return user

    def dialled(self) -> Connection:
        connection = Connection()
        self.connections.append(connection)
        self.pool.opened(connection)
        return connection

    def those(self, state: str) -> list["User"]:
        return [user for user in self.users if user.state == state]

    @property
    def open(self) -> int:
        return sum(not c.closed for c in self.connections)

    async def settled(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    def is_right(self) -> None:
        dialling = self.those("dials")
        assert self.pool.size == self.open + len(dialling) <= self.limit
        using = [user.connection for user in self.those("uses")]
        assert len(set(using)) == len(using)
        waiting = self.those("waits")
        assert self.pool.waiting == len(waiting)
        if waiting:
            assert self.pool.size == self.limit
            assert len(using) + len(dialling) == self.limit
            served = [u for u in self.users if u.state not in {"waits", "gave up"}]
            first = self.users.index(waiting[0])
            assert all(self.users.index(user) < first for user in served)


class User:
    """Takes a connection; `state` is how far that has come."""

    def __init__(self, world: World, within_s: float) -> None:
        self._world = world
        self.state = "waits"
        self.connection: Connection | None = None
        self.error: NoFreeConnection | None = None
        self._task = asyncio.ensure_future(self._take(within_s))

    async def _take(self, within_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        try:
            self.connection = await self._world.pool.take(deadline)
        except asyncio.CancelledError:
            self.state = "gave up"
            raise
        except NoFreeConnection as error:
            self.state, self.error = "gave up", error
        else:
            self.state = "uses" if self.connection else "dials"

    def gives_up(self) -> None:
        """While it waits, or just as its turn comes."""
        if self._task.cancel():
            self.state = "gave up"

    def dials(self, *, successfully: bool = True) -> None:
        if successfully:
            self.connection, self.state = self._world.dialled(), "uses"
        else:
            self._world.pool.given_up()
            self.state = "gone"

    def returns(self) -> None:
        assert self.connection is not None
        self.state = "gone"
        self._world.pool.put_back(self.connection)

    def breaks(self) -> None:
        """Its connection breaks while it is used."""
        assert self.connection is not None
        self.state = "gone"
        self.connection.closed = True
        self._world.pool.forget(self.connection)
        self._world.pool.forget(self.connection)


Pick = Callable[[list[User]], User | None]


def _act(world: World, deed: str, pick: Pick) -> None:  # noqa: C901 - a table
    match deed:
        case "comes":
            world.comes()
        case "gives up":
            if user := pick(world.those("waits")):
                user.gives_up()
        case "dials" | "fails to dial":
            if user := pick(world.those("dials")):
                user.dials(successfully=deed == "dials")
        case "returns":
            if user := pick(world.those("uses")):
                user.returns()
        case "breaks":
            if user := pick(world.those("uses")):
                user.breaks()
        case "time passes":
            world.now += IDLE_S / 2
        case "idle ones are dropped":
            world.pool.drop_idle()


DEEDS = ("comes", "comes", "gives up", "dials", "fails to dial", "returns", "breaks",
         "time passes", "idle ones are dropped")  # fmt: skip


@given(
    limit=st.integers(1, 4),
    history=st.lists(
        st.tuples(st.sampled_from(DEEDS), st.integers(0, 99), st.booleans()),
        max_size=60,
    ),
)
def test_whatever_happens(limit: int, history: list[tuple[str, int, bool]]) -> None:
    """Never more than the limit, first come first served, and everybody is served."""

    async def lived() -> None:
        world = World(limit)
        for deed, number, settles in history:
            _act(world, deed, lambda us, n=number: us[n % len(us)] if us else None)  # type: ignore[misc]
            if settles:  # else the next comes in the same turn of the loop
                await world.settled()
                world.is_right()
        await world.settled()
        world.is_right()
        await all_are_served(world)

    asyncio.run(lived())


async def all_are_served(world: World) -> None:
    while busy := world.those("dials") + world.those("uses"):
        for user in busy:
            user.dials() if user.state == "dials" else user.returns()
        await world.settled()
    assert world.those("waits") == []
    assert world.pool.size == world.open
    world.pool.drop_idle()
    assert world.pool.size == world.open == 0


@pytest.mark.asyncio
async def test_the_last_used_is_taken_first() -> None:
    world = World(9)
    first, second = await two_idle(world)
    assert world.pool.take_idle() is second
    assert world.pool.take_idle() is first
    assert world.pool.take_idle() is None


@pytest.mark.asyncio
async def test_what_was_idle_for_too_long_is_closed() -> None:
    world = World(9)
    first, second = await two_idle(world)
    world.now = IDLE_S
    assert world.pool.take_idle() is None
    assert first.closed
    assert second.closed
    assert world.pool.size == 0


@pytest.mark.asyncio
async def test_returning_one_closes_another_that_nobody_needed() -> None:
    world = World(9)
    first, second = await two_idle(world)
    world.now = IDLE_S / 2
    assert world.pool.take_idle() is second
    world.now = IDLE_S
    world.pool.put_back(second)
    assert (first.closed, second.closed) == (True, False)


async def two_idle(world: World) -> tuple[Connection, Connection]:
    users = [world.comes(), world.comes()]
    await world.settled()
    for user in users:
        user.dials()
        user.returns()
    first, second = world.connections
    return first, second


@pytest.mark.asyncio
async def test_waiting_ends_at_the_deadline() -> None:
    world = World(1)
    holder = world.comes()
    await world.settled()
    with pytest.raises(NotSent, match="no connection became free"):
        await world.pool.take(asyncio.get_running_loop().time() + 0.01)
    assert world.pool.waiting == 0
    holder.dials()
    holder.returns()
    assert world.pool.take_idle() is holder.connection


@pytest.mark.parametrize("how", ["returns", "breaks"])
@pytest.mark.asyncio
async def test_a_turn_that_comes_as_its_user_leaves_is_the_nexts(how: str) -> None:
    world = World(1)
    holder = world.comes()
    await world.settled()
    holder.dials()
    leaving, staying = world.comes(), world.comes()
    await world.settled()
    getattr(holder, how)()
    leaving.gives_up()  # in the same turn of the loop
    await world.settled()
    assert leaving.state == "gave up"
    assert staying.state == ("uses" if how == "returns" else "dials")


@pytest.mark.asyncio
async def test_a_closed_pool_tells_who_waits() -> None:
    world = World(1)
    holder = world.comes()
    await world.settled()
    holder.dials()
    waiting = world.comes()
    await world.settled()
    world.pool.close()
    await world.settled()
    assert waiting.error is not None
    assert world.open == 0
    holder.returns()  # too late, and no harm
    assert world.pool.take_idle() is None
