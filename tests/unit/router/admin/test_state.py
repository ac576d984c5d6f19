"""`/admin/state` while any part is unreachable, and its stream."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
from falcon.asgi import Request, Response
from falcon.testing import ASGIRequestEventEmitter, create_scope

from libs.common.contracts.catalogue import Catalogue, HealthState, ResourceState
from libs.common.contracts.events import Candidate, Row
from libs.common.errors import NoCatalogue, RedisAway, StoreAway
from libs.common.routing.types import Reported
from libs.common.store.interface import Book, HistoryQuery, Page
from services.router.admin.ledger import Auditor
from services.router.admin.state import MOST_WATCHING, Events, Overview
from services.router.catalogue import build_catalogue
from services.router.errors import Problem
from tests.support.values.telemetry import T0_MS, gateway_event
from tests.unit.router.test_catalogue import resource

pytestmark = pytest.mark.asyncio
DECISION: Row = {
    "id": "d1",
    "request_id": "r1",
    "candidates": [Candidate(resource="openai-1").model_dump(mode="json")],
}


@dataclass(frozen=True)
class Configured:
    catalogue: Catalogue


class World:
    """Redis and SQL, each of which can be unreachable."""

    def __init__(self) -> None:
        self.redis: Exception | None = None
        self.sql: Exception | None = None
        self.asked: list[HistoryQuery] = []

    async def states(self) -> list[ResourceState]:
        if self.redis:
            raise self.redis
        return [
            ResourceState(
                id="openai-1",
                name="openai-1",
                pool_id="openai-default",
                account_id="openai-1",
                weight=1,
                health=HealthState.HEALTHY,
                cooldown_until=None,
                paused_models=("gpt-5",),
                in_flight=2,
                requests=7,
                errors=1,
                last_latency_ms=12.5,
                last_error="500",
            )
        ]

    async def affinity_count(self) -> int:
        return 4

    async def depth(self) -> int:
        return 9

    async def in_flight(self) -> int:
        return 2

    async def reports(self) -> dict[str, Reported]:
        if self.redis:
            raise self.redis
        books = gateway_event("gw", accepted=106, ended=104, held=4)
        return {"gw": Reported(T0_MS, 500, books)}

    async def history(self, query: HistoryQuery) -> Page:
        self.asked.append(query)
        if self.sql:
            raise self.sql
        return Page((DECISION,), None)

    async def books(self, ids: Sequence[str] = ()) -> tuple[Book, ...]:
        if self.sql:
            raise self.sql
        return (Book("gw", None, None, 0, 0, 0, "running", 100, 1),)

    def overview(self, *, open_admin: bool = False) -> Overview:
        configured = Configured(build_catalogue([resource(1)]))
        auditor = Auditor(self, self, self, silent_ms=5_000)
        return Overview(self, self, self, auditor, configured, open_admin=open_admin)


async def test_the_shape_that_clients_rely_on() -> None:
    world = World()
    state = json.loads((await world.overview().gather()).model_dump_json())
    assert state.pop("timestamp").endswith("Z")
    assert state == {
        "resources": [
            {
                "id": "openai-1",
                "name": "openai-1",
                "pool_id": "openai-default",
                "account_id": "openai-1",
                "weight": 1.0,
                "health": "healthy",
                "cooldown_until": None,
                "paused_models": ["gpt-5"],
                "in_flight": 2,
                "requests": 7,
                "errors": 1,
                "last_latency_ms": 12.5,
                "last_error": "500",
            }
        ],
        "decisions": [DECISION],
        "affinity_count": 4,
        "queue_depth": 9,
        "ledger": {
            "accepted": 106,
            "stored": 100,
            "pending": 3,
            "in_flight": 2,
            "dead_lettered": 1,
            "balanced": True,
            "problems": [],
            "unverified": [],
        },
        "degraded": [],
        "admin": "token",
    }
    assert [(q.table, q.limit) for q in world.asked] == [("decisions", 50)]


async def test_an_open_admin_api_is_said() -> None:
    state = await World().overview(open_admin=True).gather()
    assert (state.admin, state.degraded) == ("open", ())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RedisAway(), "redis: unreachable"),
        (TimeoutError(), "redis: unreachable"),
        (NoCatalogue(), "redis: the resources are not there yet"),
    ],
)
async def test_without_redis_the_configured_resources_are_shown(
    error: Exception, said: str
) -> None:
    world = World()
    world.redis = error
    state = await world.overview().gather()
    assert state.degraded[0].startswith(said)
    assert [(r.id, r.health) for r in state.resources] == [("openai-1", "unknown")]
    assert (state.affinity_count, state.queue_depth) == (None, None)
    assert (state.ledger.in_flight, state.ledger.stored) == (None, 100)


async def test_without_sql_the_rest_is_shown() -> None:
    world = World()
    world.sql = StoreAway()
    state = await world.overview().gather()
    assert state.degraded == ("database: unreachable, events wait in Redis",)
    assert (state.decisions, state.ledger.stored) == ((), None)
    assert state.queue_depth == 9


async def test_many_watchers_cost_as_much_as_one() -> None:
    world = World()
    overview = world.overview()
    first, *others = await asyncio.gather(*(overview.shared() for _ in range(5)))
    assert all(other is first for other in others)
    assert len(world.asked) == 1


async def test_the_stream_sends_states_and_ends_when_the_process_stops() -> None:
    stopping = asyncio.Event()
    seen = []
    events = Events(World().overview(), stopping)
    async for event in events._events():
        seen.append(event)
        stopping.set()
    assert [event.event for event in seen] == ["state"]
    assert json.loads(seen[0].data or b"")["queue_depth"] == 9


async def test_watchers_are_bounded_and_those_that_left_count_no_more() -> None:
    events = Events(World().overview(), asyncio.Event())
    watching = [events._events() for _ in range(MOST_WATCHING)]
    for each in watching:
        await anext(each)
    request = Request(create_scope(), ASGIRequestEventEmitter().emit)
    with pytest.raises(Problem) as refused:
        await events.on_get(request, Response())
    assert (refused.value.status, refused.value.code) == (503, "too_many_watchers")
    for each in watching:
        await cast(AsyncGenerator[Any, None], each).aclose()
    await events.on_get(request, Response())
