"""What of a gateway is impaired, as it begins and ends."""

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.gateway import metrics
from services.gateway.admin import conditions as module
from services.gateway.scrape.scrape import Scrape
from tests.support.clients.scrapes import Scraped
from tests.support.memory.clock import settled, timeless
from tests.unit.gateway.admin.test_probes import House


@pytest.fixture(autouse=True)
def own_families(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "families", dict(metrics.families))


def impaired() -> set[str]:
    found = Scraped(Scrape().text().decode())
    return {
        dict(labels)["part"]
        for (name, labels), value in found.samples.items()
        if name == "proxy_degraded" and value
    }


@timeless
async def test_a_degraded_state_is_logged_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROUTER_EVERY", 1)
    house = House(tmp_path)
    await house.world.refreshed()
    with capture_logs() as logs:
        looking = asyncio.create_task(house.conditions.run(Scrape()))
        await settled()
        assert (impaired(), logs) == (set(), [])
        house.redis_up, house.router.away = False, True
        house.world.journal.problem = "journal: no room on disk"
        await asyncio.sleep(1.5 * module.EVERY_S)
        assert impaired() == {"redis", "router", "journal"}
        house.redis_up, house.router.away = True, False
        house.world.journal.problem = None
        await asyncio.sleep(1.5 * module.EVERY_S)
        assert impaired() == set()
        looking.cancel()
    told = [(line["action"], line["part"]) for line in logs]
    parts = ("redis", "journal", "router")
    assert told == [("degraded_began", part) for part in parts] + [
        ("degraded_ended", part) for part in parts
    ]


@timeless
async def test_a_look_that_fails_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    await house.world.refreshed()
    published: list[int] = []

    class Broken(Scrape):
        def publish(self) -> None:
            published.append(1)
            raise OSError

    with capture_logs() as logs:
        looking = asyncio.create_task(house.conditions.run(Broken()))
        await asyncio.sleep(1.5 * module.EVERY_S)
        looking.cancel()
    assert len(published) == 2
    assert {line["action"] for line in logs} == {"look_failed"}
