"""Requests that wait for their turn, with a Redis that says whose it is."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import pytest

from libs.common.errors import RedisAway
from libs.common.routing.types import (
    Ask,
    Busy,
    Decision,
    NoCapacity,
    Place,
    Queued,
)
from services.gateway import metrics
from services.gateway.routing.waiting_room import RENEW_S, WaitingRoom
from tests.support.memory.clock import clock, settled, timeless
from tests.support.values.asks import made_ask

ONE = Decision("one", "panic", "v1", event=b"{}")
LONGEST_S = 5.0
REQUEST_S = 60.0
INTERVAL_S = 0.02


class Redis:
    """Says `busy` until the turn of a request, and no more when its time is over."""

    def __init__(self) -> None:
        self.turn: set[str] = set()  # requests that may go
        self.asked: list[Ask] = []
        self.calls: list[float] = []  # for turns
        self.left: list[str] = []
        self.fails: Exception | None = None
        self.says: Decision | Exception = ONE

    async def decide(self, ask: Ask, ids: Sequence[str]) -> Decision:
        self.asked.append(ask)
        await asyncio.sleep(0)
        place = ask.place
        assert place is not None
        if not place.left_ms:
            raise Busy(1000)
        if ask.request_id not in self.turn:
            raise Queued("pool:*")
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    async def turns(
        self, gateway_id: str, classes: Iterable[str]
    ) -> tuple[float, list[str]]:
        assert (gateway_id, set(classes)) == ("gw", {"pool:*"})
        self.calls.append(clock().now)
        await asyncio.sleep(0)
        if self.fails:
            raise self.fails
        return INTERVAL_S, ["somebody", *self.turn]

    def leave(self, entry: str, failed: Callable[[], None]) -> None:
        self.left.append(entry)
        if self.fails:
            failed()


class Scene:
    def __init__(self) -> None:
        self.redis = Redis()
        self.room = WaitingRoom(self.redis, self.redis, "gw", LONGEST_S, REQUEST_S)
        self.ends = dict(metrics.queued.counts)

    def wait(self, name: str = "r", age_s: float = 0) -> "asyncio.Task[Decision]":
        ask = made_ask(name)
        return asyncio.create_task(self.room.wait(ask, (), Place("key:k", 0, 2), age_s))

    def ended(self) -> dict[str, int]:
        now = metrics.queued.counts
        return {e: n - self.ends[e] for e, n in now.items() if n != self.ends[e]}


@timeless
async def test_a_request_is_served_when_it_has_its_turn() -> None:
    scene = Scene()
    waiting, other = scene.wait("r1"), scene.wait("r2")
    await settled()
    assert set(scene.room.waiting) == {"r1", "r2"}
    began = clock().now
    await asyncio.sleep(0.5)
    scene.redis.turn.add("r1")
    assert await waiting == ONE
    took_ms = (clock().now - began) * 1000
    first, last = scene.redis.asked[0], scene.redis.asked[-1]
    assert (first.place, first.waited_ms) == (Place("key:k", 5_000, 2), 0)
    assert last.request_id == "r1"
    assert last.waited_ms is not None
    assert 499 <= last.waited_ms <= took_ms < 500 + 3 * INTERVAL_S * 1000
    assert set(scene.room.waiting) == {"r2"}
    # One task asks for both, at the interval that Redis names.
    assert len(scene.redis.calls) <= 0.5 / INTERVAL_S + 3
    assert (scene.ended(), scene.redis.left) == ({"served": 1}, [])
    other.cancel()


@timeless
async def test_it_asks_at_once_when_a_request_ended() -> None:
    scene = Scene()
    waiting = scene.wait()
    await settled()
    asked = len(scene.redis.calls)
    scene.redis.turn.add("r")
    scene.room.freed()
    began = clock().now
    assert await waiting == ONE
    assert clock().now - began < INTERVAL_S
    assert len(scene.redis.calls) == asked + 1
    await asyncio.sleep(1)
    assert len(scene.redis.calls) == asked + 1  # nobody waits any more


@pytest.mark.parametrize(
    ("age_s", "expected_s"), [(0, LONGEST_S), (REQUEST_S - 1.5, 1.5)]
)
@timeless
async def test_its_time_is_over_at_its_deadline_at_last(
    age_s: float, expected_s: float
) -> None:
    scene = Scene()
    began = clock().now
    with pytest.raises(Busy):
        await scene.wait(age_s=age_s)
    assert clock().now - began == pytest.approx(expected_s, abs=0.002)
    assert scene.ended() == {"refused": 1}


@timeless
async def test_it_asks_again_in_any_case() -> None:
    """Redis may have forgotten it."""
    scene = Scene()
    waiting = scene.wait()
    await asyncio.sleep(RENEW_S + 0.1)
    assert len(scene.redis.asked) == 2
    waiting.cancel()


@timeless
async def test_a_client_that_leaves_gives_up_its_place() -> None:
    scene = Scene()
    waiting = scene.wait()
    await settled()
    waiting.cancel()
    await settled()
    assert waiting.cancelled()
    assert scene.redis.left == ["r|key:k|gw"]
    assert (scene.ended(), scene.room.waiting) == ({"left": 1}, {})


@timeless
async def test_without_redis_each_decides_alone() -> None:
    scene = Scene()
    waiting = scene.wait()
    await settled()
    scene.redis.fails = RedisAway()
    scene.redis.turn.add("r")
    scene.redis.says = Decision("one", "panic", "v1", degraded=True)
    assert (await waiting).degraded
    assert scene.redis.left == ["r|key:k|gw"]


@timeless
async def test_a_place_that_was_not_given_up_is_given_up_when_redis_is_back() -> None:
    """Redis would keep it as long as others of this gateway wait."""
    scene = Scene()
    left, again = scene.wait("left"), scene.wait("again")
    await settled()
    scene.redis.fails = RedisAway()
    left.cancel()
    again.cancel()
    await settled()
    del scene.redis.left[:]
    waiting = scene.wait("again")
    await asyncio.sleep(0.5)
    assert scene.redis.left == []
    scene.redis.fails = None
    await asyncio.sleep(0.5)
    assert scene.redis.left == ["left|key:k|gw"]
    waiting.cancel()


@timeless
async def test_another_refusal_is_told() -> None:
    scene = Scene()
    scene.redis.turn.add("r")
    scene.redis.says = NoCapacity(5)
    with pytest.raises(NoCapacity):
        await scene.wait()
    assert scene.ended() == {"refused": 1}
