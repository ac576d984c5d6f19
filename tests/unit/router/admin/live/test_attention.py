"""What is wrong now: gathered seldom, with since when."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from libs.common.budgets import Budget
from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.events import Row
from libs.common.errors import RedisAway, StoreAway
from libs.common.proxy_keys import Principal
from libs.common.redis.shared_connection import Refused
from services.router.admin.live import attention as module
from services.router.admin.live.attention import Attention, AttentionView
from tests.support.values.admin import client
from tests.unit.router.test_metrics import LEDGER, resource

SICK = resource("a").model_copy(update={"health": HealthState.UNHEALTHY})
BEGAN = "2026-01-02T03:04:05.678Z"


def change(at: str = BEGAN, **over: Any) -> Row:
    event = {"resource_id": "a", "model": None, "after": "unhealthy", **over}
    return {"created_at": at, "event": event}


class World:
    """A proxy in which everything works."""

    def __init__(self) -> None:
        self.resources: Any = (resource("a"),)
        self.parts: dict[str, str] = {}
        self.reports: Any = {}
        self.used_by: Any = [], []
        self.changes: Any = []
        self.looks = self.read = 0
        self.attention = Attention(
            self.state, self.problems, self, self.impaired, self.used, self.fetch
        )

    async def state(self) -> Any:
        self.looks += 1
        sound = LEDGER.model_copy(update={"problems": (), "dead_lettered": 0})
        return SimpleNamespace(resources=self.resources, ledger=sound)

    async def problems(self) -> dict[str, str]:
        return self.parts

    @property
    def last(self) -> Any:
        return SimpleNamespace(reports=self.reports)

    async def impaired(self, gateways: Sequence[str]) -> dict[str, tuple[str, ...]]:
        assert gateways == tuple(self.reports)
        return dict(self.reports)

    async def used(self) -> Any:
        if isinstance(self.used_by, Exception):
            raise self.used_by
        return self.used_by

    async def fetch(self, name: str, values: Mapping[str, Any]) -> list[Row]:
        assert (name, set(values)) == ("health_changes", {"since"})
        self.read += 1
        if isinstance(self.changes, Exception):
            raise self.changes
        return list(self.changes)

    async def kinds(self) -> list[str]:
        return [each.kind for each in await self.attention.items()]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", -1.0)


@pytest.mark.asyncio
async def test_nothing_is_wrong() -> None:
    world = World()
    assert await world.kinds() == []
    assert world.read == 0


@pytest.mark.asyncio
async def test_all_that_is_wrong_is_told() -> None:
    world = World()
    world.resources = (SICK,)
    world.parts = {"health": "nobody checks"}
    world.reports = {"gw": ("journal",)}
    limited = Principal("k", requests_per_minute=1)
    world.used_by = [(limited, 1, 0)], [Budget("team:red", tokens=1)]
    assert await world.kinds() == [
        "degraded", "degraded", "resource_unhealthy", "tenant_limit", "tenant_limit",
    ]  # fmt: skip


@pytest.mark.asyncio
async def test_a_resource_is_sick_since_the_newest_event_that_made_it_so() -> None:
    world = World()
    world.resources = (SICK,)
    world.changes = [
        change("2026-01-03T00:00:00.000Z", model="m"),
        change("2026-01-03T00:00:00.000Z", after="healthy"),
        change(),
        change("2025-12-31T00:00:00.000Z"),
    ]
    (found,) = await world.attention.items()
    assert found.since == BEGAN


@pytest.mark.parametrize("changes", [[], StoreAway(), TimeoutError()])
@pytest.mark.asyncio
async def test_else_since_it_was_noticed(changes: Any) -> None:
    world = World()
    world.resources, world.changes = (SICK,), changes
    (first,) = await world.attention.items()
    (again,) = await world.attention.items()
    assert first.since == again.since is not None
    assert world.read == 1  # only what is new is looked up


@pytest.mark.asyncio
async def test_what_was_over_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.parts = {"redis": "away"}
    (first,) = await world.attention.items()
    world.parts = {}
    assert await world.kinds() == []
    monkeypatch.setattr(module, "iso", lambda _: "later")
    world.parts = {"redis": "away"}
    (again,) = await world.attention.items()
    assert (first.since != "later", again.since) == (True, "later")


@pytest.mark.parametrize("error", [RedisAway(), Refused("LOADING"), TimeoutError()])
@pytest.mark.asyncio
async def test_without_redis_the_rest_is_told(error: Exception) -> None:
    world = World()
    world.used_by, world.parts = error, {"redis": "away"}
    assert await world.kinds() == ["degraded"]


@pytest.mark.asyncio
async def test_many_who_ask_cost_as_much_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 1e6)
    world = World()
    assert await world.attention.items() is await world.attention.items()
    assert world.looks == 1


def test_the_answer() -> None:
    world = World()
    world.parts = {"database": "away"}
    api = client({"/admin/attention": AttentionView(world.attention)})
    answer = api.simulate_get("/admin/attention").json
    (told,) = answer["data"]
    assert answer["timestamp"].endswith("Z")
    assert (told["kind"], told["subject"], told["link"]) == (
        "degraded", "database", "#/system",
    )  # fmt: skip
    assert told["until"] is None
