"""The router's probes: readiness and metrics."""

import asyncio
from typing import Any

import prometheus_client
import pytest

from libs.common.contracts.catalogue import HealthState, ResourceState
from libs.common.contracts.events import Row
from libs.common.errors import StoreAway
from services.router import probes
from services.router.admin.ledger import Reading
from services.router.admin.schemas.state import AdminState, Ledger, WaitingRequests
from services.router.probes import Healthz, Metrics, Readyz
from tests.support.clients.scrapes import Scraped
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
        self.rows: list[Row] = []
        self.sql_without_prices = False
        self.resources: tuple[ResourceState, ...] = ()
        self.depth: int | None = 0
        self.waiting: tuple[WaitingRequests, ...] | None = None

    async def ping(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.sql:
            raise self.sql

    async def unpriced(self) -> list[Row]:
        if self.sql_without_prices:
            raise StoreAway
        return self.rows

    async def state(self) -> AdminState:
        return AdminState(
            resources=self.resources,
            decisions=(),
            affinity_count=None,
            queue_depth=self.depth,
            waiting=self.waiting,
            ledger=Ledger(**UNKNOWN, problems=(), unverified=()),
            degraded=(),
            admin="open",
            timestamp="now",
        )

    @property
    def last(self) -> Reading:
        return Reading()

    async def oldest(self) -> float | None:
        return 2.5

    def get(self, name: str) -> Any:
        routes = {
            "/healthz": Healthz(),
            "/readyz": Readyz(lambda: self.published, self.ping, self.unpriced),
            "/metrics": Metrics(self.state, self, self.oldest),
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


def test_models_without_a_price_are_named() -> None:
    world = World()
    world.rows = [{"model": f"m{n}"} for n in range(6)]
    told = world.get("readyz").json
    assert told["degraded"] == [
        "prices: none for m0, m1, m2, m3, m4, ...; what they cost is not counted"
    ]
    world.sql_without_prices = True
    assert world.get("readyz").json["degraded"] == []


def test_metrics_are_of_the_present_state() -> None:
    world = World()
    world.resources = (resource("one", HealthState.HEALTHY, 3),)
    world.depth = 12
    result = world.get("metrics")
    assert result.headers["content-type"] == prometheus_client.CONTENT_TYPE_LATEST
    found = Scraped(result.text)
    assert found.value("proxy_resource_in_flight", resource="one") == 3
    assert found.value("proxy_queue_depth") == 12
    assert found.value("proxy_queue_oldest_seconds") == 2.5
