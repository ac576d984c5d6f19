"""Alerts that wait, in SQLite. tests/integration/ingest/test_alerts.py sends them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.events import StreamedEvent
from libs.common.errors import StoreAway
from libs.common.store.rows import milliseconds
from libs.common.store.sqlite.store import SqliteStore
from services.ingest.alerts import outbox
from services.ingest.alerts.outbox import AlertDelivery, Alerts
from services.ingest.alerts.sender import NotAccepted
from services.ingest.metrics import ALERTS_DROPPED
from tests.support.values.telemetry import health_event, request_event, streamed

pytestmark = pytest.mark.asyncio
NOW = datetime.now(UTC)


def unhealthy(id_: str, at: datetime = NOW) -> StreamedEvent:
    event = health_event(
        created_at_ms=milliseconds(at), before=HealthState.HEALTHY,
        after=HealthState.UNHEALTHY,
    )  # fmt: skip
    return streamed(event, id_)


class World:
    """A database, a webhook that accepts or not, and leadership."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.sent: list[str] = []
        self.accepts = True
        self.leads: bool | None = True
        self.closed = self.released = False
        self.alerts = Alerts(store.fetch)
        self.delivery = AlertDelivery(store.fetch, self, self)
        self.stop = asyncio.Event()

    async def send(self, id_: str, body: bytes) -> None:
        self.sent.append(id_)
        if not self.accepts:
            raise NotAccepted("status 500")

    async def close(self) -> None:
        self.closed = True

    async def hold(self) -> bool:
        if self.leads is None:
            raise StoreAway
        return self.leads

    async def release(self) -> None:
        self.released = True
        if self.leads is None:
            raise StoreAway

    async def step(self, later: timedelta = timedelta(0)) -> list[str]:
        self.sent.clear()
        await self.delivery.step(NOW + later, self.stop)
        return self.sent


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with SqliteStore(tmp_path / "proxy.sqlite3") as store:
        await store.migrate()
        yield World(store)


async def test_each_alert_is_sent_once_oldest_first(world: World) -> None:
    events = [unhealthy("b"), unhealthy("a"), streamed(request_event(), "r")]
    older = unhealthy("z", NOW - timedelta(hours=1))
    await world.alerts.add([*events, older])
    await world.alerts.add(events)  # a replay
    assert await world.step() == ["z", "a", "b"]
    assert await world.step() == []
    await world.alerts.add(events)
    assert await world.step() == []


async def test_an_alert_that_is_not_accepted_waits_longer_each_time(
    world: World,
) -> None:
    await world.alerts.add([unhealthy("a"), unhealthy("b")])
    world.accepts = False
    with capture_logs() as logs:
        assert await world.step() == ["a"]  # so would "b" be
        assert await world.step(timedelta(minutes=1)) == ["a"]
    assert [(line["action"], line["alert"]) for line in logs] == [("alert_failed", "a")]
    world.accepts = True
    assert await world.step() == ["b"]  # "a" is not due
    assert await world.step(timedelta(minutes=2)) == ["a"]


async def test_alerts_are_given_up_and_forgotten(world: World) -> None:
    late = NOW - outbox.GIVEN_UP_AFTER - timedelta(minutes=1)
    await world.alerts.add([unhealthy("late", late), unhealthy("a")])
    assert await world.step() == ["a"]
    assert await world.step(outbox.KEPT + timedelta(minutes=1)) == []
    await world.alerts.add([unhealthy("a")])  # its row is gone
    assert await world.step() == ["a"]


async def test_few_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 2)
    await world.alerts.add([unhealthy(name) for name in "abc"])
    assert await world.step() == ["a", "b"]


async def test_dropping_is_counted_and_told_when_it_begins_and_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_WAITING", 2)
    before = ALERTS_DROPPED._value.get()
    with capture_logs() as logs:
        await world.alerts.add([unhealthy(name) for name in "abaacd"])
        await world.alerts.add([unhealthy("b"), unhealthy("e")])
        assert await world.step() == ["a", "b"]
        await world.alerts.add([unhealthy("b"), unhealthy("f"), unhealthy("g")])
    told = [(line["action"], line.get("dropped")) for line in logs]
    assert told == [("alerts_dropped", None), ("alerts_kept", 3)]
    assert ALERTS_DROPPED._value.get() == before + 3


async def test_only_the_leader_sends(world: World) -> None:
    await world.alerts.add([unhealthy("a")])
    world.leads = False
    assert await world.step() == []


@pytest.mark.parametrize("leads", [True, None])
async def test_it_runs_until_it_is_stopped(world: World, leads: bool | None) -> None:
    world.leads = leads
    running = asyncio.create_task(world.delivery.run(world.stop))
    await asyncio.sleep(0)
    world.stop.set()
    await asyncio.wait_for(running, 60)
    assert world.closed
    assert world.released


async def test_a_stop_ends_a_step(world: World) -> None:
    await world.alerts.add([unhealthy("a")])
    world.stop.set()
    assert await world.step() == []
