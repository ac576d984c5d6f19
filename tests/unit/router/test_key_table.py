"""Publishing proxy keys from SQL to Redis: only differences, and never an older state
over a newer one."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

import pytest

from libs.common.errors import RedisAway, StoreAway
from libs.common.proxy_keys import Principal
from services.router import key_table
from services.router.key_table import COMPARE_EVERY, Contended, KeyPublisher
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio


class Rows:
    """What SQL holds; a key without a principal is revoked."""

    def __init__(self, *ids: str) -> None:
        self.keys: dict[str, Principal | None] = {id_: Principal(id=id_) for id_ in ids}
        self.error: Exception | None = None
        self.read = 0
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    async def records(self) -> dict[str, Principal]:
        self.read += 1
        if self.error:
            raise self.error
        found = {f"hash of {k}": p for k, p in self.keys.items() if p is not None}
        await self._others_act()
        return found

    async def record(self, id_: str) -> tuple[str, Principal | None] | None:
        if self.error:
            raise self.error
        found = (f"hash of {id_}", self.keys[id_]) if id_ in self.keys else None
        await self._others_act()
        return found

    async def _others_act(self) -> None:
        """Changes between a read and the write that follows it."""
        act, self.meanwhile = self.meanwhile, None
        if act:
            await act()


class Table:
    """What Redis holds."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hurried = False  # another router is always faster
        self.writes = 0
        self.empty()

    def empty(self) -> None:
        self.current: str | None = None
        self.keys: dict[str, Principal] = {}

    @property
    def ids(self) -> set[str]:
        return {principal.id for principal in self.keys.values()}

    async def version(self) -> str | None:
        await asyncio.sleep(0)  # others act while one waits
        if self.error:
            raise self.error
        return self.current

    async def read(self) -> dict[str, Principal]:
        return dict(self.keys)

    async def change(
        self,
        seen: str | None,
        changed: Mapping[str, Principal],
        gone: Collection[str] = (),
    ) -> bool:
        if self.error:
            raise self.error
        if seen != self.current or self.hurried:
            return False
        self.keys = {k: p for k, p in self.keys.items() if k not in gone} | {**changed}
        self.writes += 1
        self.current = str(self.writes)
        return True


async def test_all_keys_are_published_once() -> None:
    table = Table()
    publisher = KeyPublisher(Rows("a", "b"), table)
    for _ in range(3):
        await publisher.look()
    assert (table.ids, table.writes) == ({"a", "b"}, 1)


async def test_that_there_are_no_keys_is_published_too() -> None:
    table = Table()
    await KeyPublisher(Rows(), table).look()
    assert (table.current, table.ids) == ("1", set())


async def test_an_emptied_redis_is_filled_with_the_next_look() -> None:
    rows, table = Rows("a", "b"), Table()
    publisher = KeyPublisher(rows, table)
    await publisher.look()
    table.empty()
    await publisher.look()
    assert table.ids == {"a", "b"}


async def test_a_change_is_told_alone() -> None:
    rows, table = Rows("a"), Table()
    publisher = KeyPublisher(rows, table)
    await publisher.look()
    rows.keys["b"] = Principal(id="b")
    assert await publisher.changed("b")
    assert (table.ids, rows.read) == ({"a", "b"}, 1)
    rows.keys["a"] = None
    assert await publisher.changed("a")
    assert (table.ids, rows.read) == ({"b"}, 1)


async def test_a_change_told_to_an_emptied_redis_brings_all_keys() -> None:
    rows, table = Rows("a", "b"), Table()
    assert await KeyPublisher(rows, table).changed("b")
    assert table.ids == {"a", "b"}


async def test_nothing_is_told_of_a_key_that_is_not_there() -> None:
    table = Table()
    publisher = KeyPublisher(Rows("a"), table)
    await publisher.look()
    assert await publisher.changed("nobody")
    assert table.writes == 1


@pytest.mark.parametrize("error", [RedisAway(), OSError("READONLY")])
async def test_what_could_not_be_told_follows(error: Exception) -> None:
    rows, table = Rows("a"), Table()
    publisher = KeyPublisher(rows, table)
    await publisher.look()
    rows.keys["b"] = Principal(id="b")
    table.error = error
    assert not await publisher.changed("b")
    table.error = None
    await publisher.look()
    assert table.ids == {"a", "b"}


async def test_what_somebody_wrote_into_sql_is_noticed() -> None:
    rows, table = Rows("a", "b"), Table()
    publisher = KeyPublisher(rows, table)
    await publisher.look()
    rows.keys["a"] = Principal(id="a", enabled=False)
    del rows.keys["b"]
    for _ in range(COMPARE_EVERY):
        await publisher.look()
    assert table.keys == {"hash of a": Principal(id="a", enabled=False)}


async def test_an_older_reading_never_replaces_a_newer_one() -> None:
    rows, table = Rows("a"), Table()
    here, there = KeyPublisher(rows, table), KeyPublisher(rows, table)
    await here.look()

    async def revoke_there() -> None:
        rows.keys["a"] = None
        assert await there.changed("a")

    for read in (here.look, lambda: here.changed("a")):
        rows.keys["a"] = Principal(id="a")
        await there.changed("a")
        here._missed += 1  # so that it compares
        rows.meanwhile = revoke_there
        await read()
        assert table.ids == set()


async def test_many_changes_at_once_are_all_told() -> None:
    rows, table = Rows(), Table()
    publisher = KeyPublisher(rows, table)
    await publisher.look()
    rows.keys = {f"{n}": Principal(id=f"{n}") for n in range(50)}
    told = await asyncio.gather(*map(publisher.changed, rows.keys))
    assert (all(told), len(table.ids)) == (True, 50)


async def test_whoever_is_never_first_gives_up_for_now() -> None:
    table = Table()
    table.hurried = True
    publisher = KeyPublisher(Rows("a"), table)
    with pytest.raises(Contended):
        await publisher.look()
    assert not await publisher.changed("a")


async def test_the_loop_outlives_what_goes_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(key_table, "EVERY_S", 0.001)
    rows, table = Rows("a"), Table()
    rows.error = StoreAway()
    loop = asyncio.create_task(KeyPublisher(rows, table).run())

    async def tried() -> bool:
        return rows.read > 2

    await eventually(tried)
    rows.error = None

    async def published() -> bool:
        return table.ids == {"a"}

    await eventually(published)
    loop.cancel()
