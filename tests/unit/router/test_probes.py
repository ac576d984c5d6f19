"""The router's probes: readiness and metrics."""

import asyncio
from typing import Any

import prometheus_client
import pytest
from prometheus_client.parser import text_string_to_metric_families

from libs.common.contracts.catalogue import HealthState, ResourceState
from libs.common.errors import StoreAway
from services.router import probes
from services.router.admin.schemas.state import AdminState, Ledger
from services.router.probes import Healthz, Metrics, Readyz
from tests.support.values.admin import client

UNKNOWN: dict[str, Any] = dict.fromkeys(
    ("accepted", "stored", "pending", "in_flight", "dead_lettered", "balanced")
)


def resource(id_: str, health: HealthState, in_flight: int = 0) -> ResourceState:
    return ResourceState(
        id=id_, name=id_, pool_id=None, account_id=id_, weight=1, health=health,
        cooldown_until=None, in_flight=in_flight, requests=0, errors=0,
        last_latency_ms=None, last_error=None,
    )  # fmt: skip


class World:
    def __init__(self) -> None:
        self.published = True
        self.sql: Exception | None = None
        self.hangs = False
        self.resources: tuple[ResourceState, ...] = ()
        self.depth: int | None = 0

    async def ping(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.sql:
            raise self.sql

    async def state(self) -> AdminState:
        return AdminState(
            resources=self.resources,
            decisions=(),
            affinity_count=None,
            queue_depth=self.depth,
            ledger=Ledger(**UNKNOWN, problems=(), unverified=()),
            degraded=(),
            admin="open",
            timestamp="now",
        )

    def get(self, name: str) -> Any:
        routes = {
            "/healthz": Healthz(),
            "/readyz": Readyz(lambda: self.published, self.ping),
            "/metrics": Metrics(self.state),
        }
        return client(routes).simulate_get(f"/{name}")


def test_it_lives() -> None:
    assert World().get("healthz").json == {"status": "alive"}


@pytest.mark.parametrize(
    ("published", "sql", "status", "word", "degraded"),
    [
        (True, None, 200, "ready", []),
        (True, StoreAway(), 200, "degraded", ["database: unreachable, no history"]),
        (False, None, 503, "unavailable",
         ["redis: the catalogue cannot be published"]),
        (False, StoreAway(), 503, "unavailable",
         ["redis: the catalogue cannot be published",
          "database: unreachable, no history"]),
    ],
)  # fmt: skip
def test_it_is_ready_while_gateways_can_route(
    published: bool, sql: Exception | None, status: int, word: str, degraded: list[str]
) -> None:
    world = World()
    world.published, world.sql = published, sql
    result = world.get("readyz")
    assert result.status_code == status
    assert (result.json["status"], result.json["degraded"]) == (word, degraded)


def test_a_database_that_hangs_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PATIENCE_S", 0.01)
    world = World()
    world.hangs = True
    assert world.get("readyz").json["status"] == "degraded"


def measured(world: World) -> dict[str, dict[str, float]]:
    """By metric, then by resource."""
    result = world.get("metrics")
    assert result.headers["content-type"] == prometheus_client.CONTENT_TYPE_LATEST
    return {
        family.name: {s.labels.get("resource", ""): s.value for s in family.samples}
        for family in text_string_to_metric_families(result.text)
    }


def test_resources_and_the_backlog_are_measured() -> None:
    world = World()
    world.resources = tuple(
        resource(state, state, n) for n, state in enumerate(HealthState)
    )
    world.depth = 12
    found = measured(world)
    assert found["proxy_resource_in_flight"] == {
        "unknown": 0, "healthy": 1, "degraded": 2, "unhealthy": 3,
    }  # fmt: skip
    assert found["proxy_resource_available"] == {
        "unknown": 1, "healthy": 1, "degraded": 0, "unhealthy": 0,
    }  # fmt: skip
    assert found["proxy_queue_depth"] == {"": 12}


def test_a_resource_that_went_is_measured_no_more_and_what_is_unknown_stays() -> None:
    world = World()
    world.resources, world.depth = (resource("one", HealthState.HEALTHY),), 7
    measured(world)
    world.resources, world.depth = (resource("two", HealthState.HEALTHY),), None
    found = measured(world)
    assert set(found["proxy_resource_in_flight"]) == {"two"}
    assert found["proxy_queue_depth"] == {"": 7}
