"""The stream of states and changes: its events, and that all clients share the work."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from falcon.asgi import Request, Response
from falcon.testing import ASGIRequestEventEmitter, create_scope

from libs.common.contracts.events import Row
from libs.common.errors import StoreAway
from libs.common.store.interface import HistoryQuery, Page
from services.router.admin.live.stream import MOST_WATCHING, Events, Feed, change
from services.router.admin.schemas.attention import AttentionItem
from services.router.admin.schemas.state import AdminState
from services.router.errors import Problem
from tests.unit.router.admin.test_state import World

pytestmark = pytest.mark.asyncio
WRONG = AttentionItem(
    kind="degraded", subject="redis", since=None, text="Away.", to_do="Start it."
)
RESOURCES = [{"id": "a", "in_flight": 0}, {"id": "b", "in_flight": 0}]
BEFORE = {
    "resources": RESOURCES,
    "decisions": [{"id": "2"}, {"id": "1"}],
    "requests": [],
    "queue_depth": 1,
    "admin": "token",
}


class Told:
    """What a feed reads. Each state has a queue that is one longer."""

    def __init__(self) -> None:
        self.gathered = 0
        self.away = False

    async def state(self) -> AdminState:
        self.gathered += 1
        state = await World().overview().gather()
        return state.model_copy(update={"queue_depth": self.gathered})

    async def history(self, query: HistoryQuery) -> Page:
        if self.away:
            raise StoreAway
        assert (query.table, query.limit) == ("requests", 50)
        row: Row = {"id": f"r{self.gathered}", "status_code": 200}
        return Page((row,), None)

    async def attention(self) -> tuple[AttentionItem, ...]:
        return (WRONG,)

    def feed(self) -> Feed:
        return Feed(self.state, self, self.attention)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is a new tick, and no event waits for the next second."""
    monkeypatch.setattr("services.router.admin.live.stream.EVERY_S", 0.0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"queue_depth": 2}, {"queue_depth": 2}, id="a figure"),
        pytest.param(
            {"resources": [RESOURCES[0], {"id": "b", "in_flight": 1}]},
            {"resources": [{"id": "b", "in_flight": 1}]},
            id="one resource",
        ),
        pytest.param(
            {"decisions": [{"id": "3"}, {"id": "2"}]},
            {"decisions": [{"id": "3"}]},
            id="new decisions",
        ),
        pytest.param({"resources": RESOURCES[:1]}, None, id="a resource is gone"),
        pytest.param({"resources": RESOURCES[::-1]}, None, id="another order"),
    ],
)
async def test_a_change_has_what_differs(
    now: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    assert change(BEFORE, {**BEFORE, **now}) == expected


async def test_by_default_each_event_is_a_state() -> None:
    events = Events(Told().feed(), asyncio.Event())._states()
    first, second = await anext(events), await anext(events)
    assert first is not None
    assert second is not None
    assert [first.event, second.event] == ["state", "state"]
    plain = json.loads(second.data or b"")
    assert plain["queue_depth"] == 2
    assert plain["decisions"][0]["candidates"]
    assert not {"requests", "attention"} & plain.keys()


async def test_changes_follow_one_whole_state() -> None:
    events = Events(Told().feed(), asyncio.Event())._changes()
    first, second = await anext(events), await anext(events)
    assert first is not None
    assert second is not None
    whole, changed = json.loads(first.data or b""), json.loads(second.data or b"")
    assert [first.event, second.event] == ["state", "change"]
    assert whole["requests"] == [{"id": "r1", "status_code": 200}]
    assert whole["attention"][0]["subject"] == "redis"
    assert whole["decisions"] == [{"id": "d1", "request_id": "r1"}]
    assert changed.pop("timestamp") >= whole["timestamp"]
    assert changed == {"queue_depth": 2, "requests": [{"id": "r2", "status_code": 200}]}


async def test_who_missed_a_tick_gets_a_whole_state() -> None:
    feed = Told().feed()
    events = Events(feed, asyncio.Event())._changes()
    await anext(events)
    await feed.watched()
    late = await anext(events)
    assert late is not None
    assert late.event == "state"


async def test_after_a_tick_that_only_plain_clients_saw_comes_a_whole_state() -> None:
    told = Told()
    feed = told.feed()
    await feed.plain()
    tick = await feed.watched()
    assert tick.change is None


async def test_all_clients_share_one_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.router.admin.live.stream.EVERY_S", 1e6)
    told = Told()
    feed = told.feed()
    ticks = await asyncio.gather(*(feed.watched() for _ in range(5)), feed.plain())
    assert {id(tick) for tick in ticks} == {id(ticks[0])}
    assert ticks[0].whole is ticks[1].whole
    assert told.gathered == 1
    events = Events(feed, asyncio.Event())._changes()
    assert await anext(events) is not None
    assert await anext(events) is None  # the same tick again


async def test_without_the_database_there_are_no_requests() -> None:
    told = Told()
    told.away = True
    assert json.loads((await told.feed().watched()).whole)["requests"] == []


async def test_the_stream_ends_when_the_process_stops() -> None:
    stopping = asyncio.Event()
    seen = []
    events = Events(Told().feed(), stopping)
    async for event in events._paced(events._states()):
        seen.append(event)
        stopping.set()
    assert [event.event for event in seen] == ["state"]


async def test_watchers_are_bounded_and_those_that_left_count_no_more() -> None:
    events = Events(Told().feed(), asyncio.Event())
    watching = [events._paced(events._states()) for _ in range(MOST_WATCHING)]
    for each in watching:
        await anext(each)
    request = Request(create_scope(), ASGIRequestEventEmitter().emit)
    with pytest.raises(Problem) as refused:
        await events.on_get(request, Response())
    assert (refused.value.status, refused.value.code) == (503, "too_many_watchers")
    for each in watching:
        await cast(AsyncGenerator[Any, None], each).aclose()
    await events.on_get(request, Response())
