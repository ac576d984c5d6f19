"""Gauges of a gateway's parts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from libs.common.redis.shared_connection import SharedConnection
from services.gateway import metrics
from services.gateway.gauges import register_gauges
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.scrape.scrape import Scrape, read
from services.gateway.scrape.snapshot import Snapshot, decoded
from tests.support.clients.scrapes import Scraped
from tests.support.memory.clock import timeless
from tests.support.memory.plane import World
from tests.support.memory.twin import Twin


@timeless
async def test_parts_are_read_at_each_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "families", dict(metrics.families))
    world = World(tmp_path, Twin())
    delivery = JournalDelivery(world.journal, cast(SharedConnection, None), "telemetry")
    server: Any = SimpleNamespace(open=4, room=SimpleNamespace(held=9))
    upstream: Any = SimpleNamespace(open=2)
    redis: Any = SimpleNamespace(up=True)
    register_gauges(server, world.in_flight, upstream, delivery, redis)
    snapshot = Snapshot(1, read())
    assert decoded(snapshot.encoded()) == snapshot  # as siblings read it
    found = Scraped(Scrape().text().decode())
    assert found.value("proxy_open_connections") == 4
    assert found.value("proxy_body_bytes") == 9
    assert found.value("proxy_upstream_connections") == 2
    assert found.value("proxy_requests_in_flight") == 0
    assert found.value("proxy_tasks") >= 1
    assert found.value("proxy_journal_bytes") == world.journal.size_bytes > 0
    assert found.value("proxy_redis_up") == 1
    redis.up, world.journal.lost, world.journal.corrupt = False, 5, 6
    found = Scraped(Scrape().text().decode())
    assert found.value("proxy_redis_up") == 0
    assert found.value("proxy_journal_lost_events") == 5
    assert found.value("proxy_journal_corrupt_records") == 6
    assert found.value("proxy_outbox_events") == len(delivery)
    assert found.value("proxy_journal_held_requests") == 0
