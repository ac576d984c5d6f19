"""`/admin/state` while any part is unreachable."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import pytest

from libs.common.contracts.catalogue import Catalogue, HealthState, ResourceState
from libs.common.contracts.events import Candidate, Row
from libs.common.errors import NoCatalogue, RedisAway, StoreAway
from libs.common.routing.types import Queue, Reported
from libs.common.store.interface import Book, HistoryQuery, Page
from services.router.admin.ledger import Auditor
from services.router.admin.reasons import explained
from services.router.admin.state import Overview
from services.router.catalogue import build_catalogue
from tests.support.values.telemetry import T0_MS, gateway_event
from tests.unit.router.test_catalogue import resource

pytestmark = pytest.mark.asyncio
DECISION: Row = {
    "id": "d1",
    "request_id": "r1",
    "candidates": [msgspec.to_builtins(Candidate(resource="openai-1"))],
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
        self.without_price: tuple[str, ...] = ()

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

    async def queues(self) -> list[Queue]:
        return [Queue("openai-default", None, 7, 2)]

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

    async def unpriced(self) -> list[Row]:
        return [{"model": model} for model in self.without_price]

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
                "limits": [],
                "in_flight": 2,
                "requests": 7,
                "errors": 1,
                "last_latency_ms": 12.5,
                "last_error": "500",
            }
        ],
        "decisions": explained([DECISION]),
        "affinity_count": 4,
        "queue_depth": 9,
        "waiting": [
            {
                "pool_id": "openai-default",
                "account_id": None,
                "requests": 7,
                "shares": 2,
            }
        ],
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
        "unpriced_models": [],
        "degraded": [],
        "admin": "token",
        "shard": "rpx",
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


async def test_models_without_a_price_are_named() -> None:
    world = World()
    world.without_price = ("m-1", "m-2")
    state = await world.overview().gather()
    assert state.unpriced_models == ("m-1", "m-2")
    (said,) = state.degraded
    assert said == "prices: none for m-1, m-2; what they cost is not counted"


async def test_many_watchers_cost_as_much_as_one() -> None:
    world = World()
    overview = world.overview()
    first, *others = await asyncio.gather(*(overview.shared() for _ in range(5)))
    assert all(other is first for other in others)
    assert len(world.asked) == 1
