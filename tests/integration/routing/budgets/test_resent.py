"""Events that are sent again at any point while their window is summed count once."""

from collections.abc import Iterable
from typing import Any

import pytest

from libs.common.routing.budgets import KNOWN, RECOUNTING, Noted, Quota, Recount, Sum
from libs.common.routing.types import SpendUnknown
from tests.integration.routing.budgets.scene import Scene, budget

pytestmark = pytest.mark.asyncio


class Router:
    """Sums a window step by step. `sql`: the tokens of requests that are stored."""

    def __init__(self, scene: Scene, sql: dict[str, int]) -> None:
        self.scene = scene
        self.sql = sql
        self.streamed: dict[str, int] = {}
        self.recount = Recount("", "", 0, 0)
        self.noted = Noted(0, set())
        self.sum = Sum(0, 0)

    async def begin(self) -> None:
        """Notes what the stream has."""
        _, (self.recount,) = await self.scene.routing.recounts()
        used = [(id_, tokens, 0) for id_, tokens in self.streamed.items()]
        await self.note(used)

    async def note(self, used: Iterable[tuple[str, int, int]] = ()) -> set[str]:
        """Returns what is noted since the call before."""
        noted = await self.scene.routing.note_events(self.recount, used)
        assert noted is not None
        before, self.noted = self.noted.ids, noted
        return noted.ids - before

    async def ask(self) -> None:
        """Sums what SQL has, and makes sure that nothing of it was noted meanwhile."""
        left_out = self.noted.ids
        used = [tokens for id_, tokens in self.sql.items() if id_ not in left_out]
        self.sum = Sum(sum(used), 0)
        assert not await self.note() & set(self.sql)

    async def end(self) -> bool:
        return await self.scene.routing.recounted(self.recount, self.noted, self.sum)

    async def look(self) -> None:
        await self.begin()
        await self.ask()
        assert await self.end()


class OlderRouter(Router):
    """Calls the functions of the version before."""

    async def note(self, used: Iterable[tuple[str, int, int]] = ()) -> set[str]:
        triples = [part for each in used for part in each]
        before = self.noted.ids
        found = await self.call("recount_v1", *triples)
        self.noted = Noted(0, {id_.decode() for id_ in found})
        return self.noted.ids - before

    async def end(self) -> bool:
        return bool(await self.call("recounted_v1", *self.sum))

    async def call(self, name: str, *args: Any) -> Any:
        keys = self.scene.keys
        named = keys.function(name), 2, keys.catalogue_version(), self.scene.stream
        given = *self.recount.named, *args
        return await self.scene.redis.execute_command("FCALL", *named, *given)


async def in_doubt(scene: Scene) -> Quota:
    """Limits of a window of which nothing is known."""
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    return quota


async def test_a_stored_event_before_the_first_note(scene: Scene) -> None:
    await in_doubt(scene)
    router = Router(scene, {"r9": 20})
    await scene.resend("r9", 20)
    await router.look()
    assert await scene.spent() == (20, 0, KNOWN)


async def test_a_stored_event_while_sql_is_asked(scene: Scene) -> None:
    await in_doubt(scene)
    router = Router(scene, {"r9": 20})
    await router.begin()
    await scene.resend("r9", 20)
    # It is noted and stored: the router asks again.
    assert await router.note() == {"r9"}
    await router.ask()
    assert await router.end()
    assert await scene.spent() == (20, 0, KNOWN)


@pytest.mark.parametrize("kind", [Router, OlderRouter])
async def test_a_stored_event_before_the_sum_is_told(
    scene: Scene, kind: type[Router]
) -> None:
    quota = await in_doubt(scene)
    router = kind(scene, {"r9": 20})
    await router.begin()
    await router.ask()
    await scene.resend("r9", 20)
    assert await router.end()
    # As if it had come a moment later: requests go on, and it is summed anew.
    assert await scene.spent() == (20, 0, RECOUNTING)
    await scene.acquire(quota)
    assert not await router.end()
    await router.look()
    assert await scene.spent() == (20, 0, KNOWN)
    assert (await scene.routing.recounts())[1] == []


async def test_a_stored_event_after_the_sum_was_told(scene: Scene) -> None:
    await in_doubt(scene)
    router = Router(scene, {"r9": 20})
    await router.look()
    await scene.resend("r9", 20)
    assert await scene.spent() == (20, 0, RECOUNTING)
    await router.look()
    assert await scene.spent() == (20, 0, KNOWN)


async def test_an_event_twice(scene: Scene) -> None:
    await in_doubt(scene)
    router = Router(scene, {"r9": 20})
    await scene.resend("r9", 20)
    await router.begin()
    await router.ask()
    await scene.resend("r9", 20)
    # It was noted before the sum, which leaves it out.
    assert await router.end()
    assert await scene.spent() == (20, 0, KNOWN)
    await scene.resend("r9", 20)
    await router.begin()
    await router.ask()
    await scene.resend("r9", 20)
    await scene.resend("r8", 1)
    await scene.resend("r8", 1)
    assert await router.end()
    assert await scene.spent() == (20, 0, RECOUNTING)
    router.streamed = {"r8": 1, "r9": 20}
    await router.look()
    assert await scene.spent() == (21, 0, KNOWN)


@pytest.mark.parametrize("stored", [False, True])
async def test_an_event_that_was_not_stored(scene: Scene, stored: bool) -> None:
    """Redis was emptied when it ended. `stored`: ingest has it before the next sum."""
    await in_doubt(scene)
    router = Router(scene, {"r7": 3})
    await router.begin()
    await router.ask()
    await scene.resend("r9", 20)
    assert await router.end()
    assert await scene.spent() == (3, 0, RECOUNTING)
    if stored:
        router.sql["r9"] = 20
    else:
        router.streamed = {"r9": 20}
    await router.look()
    assert await scene.spent() == (23, 0, KNOWN)


async def test_requests_that_end_meanwhile_count_once(scene: Scene) -> None:
    quota = await in_doubt(scene)
    await scene.summed()
    await scene.acquire(quota)
    await scene.acquire(quota)
    await scene.routing.doubt()
    router = Router(scene, {"r9": 20})
    await router.begin()
    await router.ask()
    await scene.release(quota, 7, number=2)
    await scene.resend("r9", 20)
    await scene.release(quota, 5, number=3)
    await scene.resend("r3", 5)  # the reply of its release was lost
    assert await router.end()
    assert await scene.spent() == (20 + 7 + 5, 0, RECOUNTING)
    router.sql["r2"] = 7
    router.streamed = {"r3": 5, "r9": 20}
    await router.look()
    assert await scene.spent() == (20 + 7 + 5, 0, KNOWN)


async def test_a_release_behind_its_own_event(scene: Scene) -> None:
    """The gateway sent the event again while its release was under way."""
    quota = await in_doubt(scene)
    await scene.summed()
    await scene.acquire(quota)
    await scene.routing.doubt()
    router = Router(scene, {"r2": 7})
    await router.begin()
    await router.ask()
    await scene.resend("r2", 7)
    await scene.release(quota, 7, number=2)
    assert await router.end()
    await router.look()
    assert await scene.spent() == (7, 0, KNOWN)


async def test_two_routers_at_once(scene: Scene) -> None:
    """One that was stopped for longer than it leads."""
    await in_doubt(scene)
    older, newer = Router(scene, {"r9": 20}), Router(scene, {"r9": 20})
    await older.begin()
    await older.ask()
    await scene.resend("r9", 20)
    await newer.begin()
    assert await older.end()
    assert not await newer.end()
    assert await scene.spent() == (20, 0, RECOUNTING)
    await newer.look()
    assert await scene.spent() == (20, 0, KNOWN)


async def test_a_steady_flow_does_not_keep_a_budget_closed(scene: Scene) -> None:
    quota = await in_doubt(scene)
    router = Router(scene, {f"r{n}": 1 for n in range(900, 920)})
    for sent_again in list(router.sql):
        await router.begin()
        await router.ask()
        await scene.resend(sent_again, 1)
        assert await router.end()
        assert await scene.spent() == (20, 0, RECOUNTING)
        await scene.acquire(quota)
    await router.look()
    assert await scene.spent() == (20, 0, KNOWN)
