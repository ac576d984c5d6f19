"""Who reads anew after a change of another router."""

import asyncio

import pytest
from structlog.testing import capture_logs

from libs.common.errors import StoreAway
from libs.common.runtime.lifecycle import end
from services.router.shards.changes import ChangeWatcher
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio


class World:
    """SQL, and what is read anew."""

    def __init__(self) -> None:
        self.kinds: list[str] = []  # of the objects that were changed
        self.away = False
        self.read: list[str] = []
        readers = {
            "proxy_key": self.keys,
            "team": self.keys,
            "provider": self.registry,
        }
        self.watcher = ChangeWatcher(self, readers)

    async def changes(self, seen: int) -> tuple[int, set[str]]:
        if self.away:
            raise StoreAway
        return len(self.kinds), set(self.kinds[seen:])

    async def keys(self) -> None:
        self.read.append("keys")

    async def registry(self) -> None:
        self.read.append("registry")

    async def after(self, *kinds: str) -> list[str]:
        """What is read after changes."""
        self.kinds += kinds
        self.read.clear()
        await self.watcher.look()
        return sorted(self.read)


async def test_what_depends_on_a_change_is_read_once() -> None:
    world = World()
    # Before it began to look, another router may have changed anything.
    assert await world.after("provider") == ["keys", "registry"]
    assert await world.after() == []
    assert await world.after("proxy_key", "team", "proxy_key") == ["keys"]
    assert await world.after("provider", "admin_token") == ["registry"]
    assert await world.after("admin_token") == []


async def test_it_goes_on_when_sql_is_back() -> None:
    world = World()
    await world.watcher.look()
    world.away = True
    with capture_logs() as logs:
        running = asyncio.create_task(world.watcher.run())

        async def failed() -> bool:
            return bool(logs)

        await eventually(failed)
        world.kinds.append("team")
        world.read.clear()
        world.away = False

        async def read() -> bool:
            return world.read == ["keys"]

        await eventually(read)
    await end([running])
    assert [log["action"] for log in logs] == ["changes_failed"]
