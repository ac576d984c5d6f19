"""The gateway's probes and metrics."""

from pathlib import Path
from typing import Any, cast

import falcon.asgi
import falcon.testing

from libs.common.proxy_keys import Principal
from libs.common.redis.shared_connection import SharedConnection
from libs.common.runtime.compiled import form
from services.gateway.admin.conditions import GatewayConditions
from services.gateway.admin.probes import Probes
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.scrape.scrape import Scrape
from tests.support.memory.clock import timeless
from tests.support.memory.plane import World
from tests.support.memory.router import Router
from tests.support.memory.twin import Twin, resource


class House:
    def __init__(self, root: Path) -> None:
        self.world = World(root, Twin(resource("a")))
        self.router = Router()
        self.redis_up = True
        delivery = JournalDelivery(
            self.world.journal, cast(SharedConnection, None), "telemetry"
        )
        self.conditions = GatewayConditions(
            self.world.catalogue,
            delivery,
            lambda: self.redis_up,
            self.router.client,
            self.world.authenticator,
        )
        self.probes = Probes(
            self.world.catalogue,
            delivery,
            self.world.authenticator,
            self.conditions,
            Scrape(),
        )

    async def asked(self, probe: str) -> tuple[int, Any]:
        app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
        app.add_route(f"/{probe}", self.probes, suffix=probe)
        async with falcon.testing.ASGIConductor(app) as conductor:
            result = await conductor.simulate_get(f"/{probe}")
            head = await conductor.simulate_head(f"/{probe}")
        assert (head.status_code, head.content) == (result.status_code, b"")
        if result.headers["content-type"].startswith("application/json"):
            return result.status_code, result.json
        return result.status_code, result.text


@timeless
async def test_a_gateway_lives_whatever_is_away(tmp_path: Path) -> None:
    assert await House(tmp_path).asked("healthz") == (200, {"status": "ok"})


@timeless
async def test_it_is_ready_once_it_knows_resources(tmp_path: Path) -> None:
    house = House(tmp_path)
    status, told = await house.asked("readyz")
    assert (status, told["ready"]) == (503, False)
    house.world.catalogue.problem = "An older router."
    assert "redis: An older router." in (await house.asked("readyz"))[1]["degraded"]
    await house.world.refreshed()
    status, told = await house.asked("readyz")
    assert (status, told["ready"], told["degraded"]) == (200, True, [])
    assert (told["resources"], told["catalogue"]) == (1, "v1")
    assert told["journal_bytes"] > 0
    assert told["hot_path"] == form()


@timeless
async def test_what_is_degraded_is_named_and_is_still_ready(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.world.table.put(Principal(id="k", requests_per_minute=1))
    await house.world.refreshed()
    house.redis_up = False
    house.router.away = True
    house.world.journal.lost = 3
    house.world.journal.problem = "journal: no disk"
    status, told = await house.asked("readyz")
    assert (status, told["ready"]) == (200, True)
    assert [line.split(":")[0] for line in told["degraded"]] == [
        "redis",
        "proxy keys",
        "journal",
        "journal",
        "router",
    ]


@timeless
async def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    status, text = await House(tmp_path).asked("metrics")
    assert status == 200
    assert "proxy_requests_total" in text
