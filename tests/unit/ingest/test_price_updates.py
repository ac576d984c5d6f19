"""Prices that were set since, and models without one."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from libs.common.contracts.events import Row
from libs.common.errors import StoreAway
from libs.common.store.interface import Actor
from libs.common.store.rollups import Rollups
from services.ingest.price_updates import PriceUpdates
from services.ingest.usage import Usage
from tests.support.values.telemetry import request_event, streamed

PRICE: Row = {
    "model": "m", "service_tier": "", "valid_from": "2020-01-01T00:00:00.000Z",
    "input": 1.0, "cached_input": 1.0, "output": 1.0, "reasoning": None, "own": True,
}  # fmt: skip


class Sql:
    def __init__(self) -> None:
        self.away = False
        self.used = asyncio.Event()
        self.ran: list[tuple[str, Mapping[str, Any]]] = []

    async def fetch(
        self, name: str, values: Mapping[str, Any], by: Actor | None = None
    ) -> list[Row]:
        if self.away:
            raise StoreAway
        self.ran.append((name, values))
        if name == "drop_unpriced_models":
            self.used.set()
        return [PRICE] if name == "price_list" else []


def use(usage: Usage, model: str, **more: Any) -> None:
    event = request_event(model=model, input_tokens=1, output_tokens=0, **more)
    usage.count([streamed(event)])


@pytest.mark.asyncio
async def test_a_step_reads_prices_and_stores_models_without_one() -> None:
    sql, usage = Sql(), Usage()
    use(usage, "fast", upstream_model="x")
    use(usage, "fast", upstream_model="x")
    use(usage, "m")
    rollups = Rollups()
    await PriceUpdates(sql.fetch, usage, rollups).step()
    assert usage.prices
    assert rollups.prices is usage.prices
    stored = {v["model"]: v for name, v in sql.ran if name == "put_unpriced_model"}
    assert set(stored) == {"x", "m"}
    assert (stored["x"]["asked"], stored["x"]["requests"]) == ("fast", 2)
    sql.ran.clear()
    use(usage, "m")  # has a price now
    await PriceUpdates(sql.fetch, usage, Rollups()).step()
    assert [name for name, _ in sql.ran] == ["price_list", "drop_unpriced_models"]


@pytest.mark.asyncio
async def test_without_a_database_prices_stay() -> None:
    sql, usage = Sql(), Usage()
    updates = PriceUpdates(sql.fetch, usage, Rollups())
    await updates.step()
    before, sql.away = usage.prices, True
    await updates.step()
    assert usage.prices is before


@pytest.mark.asyncio
async def test_it_ends_with_a_last_step() -> None:
    sql, usage, stop = Sql(), Usage(), asyncio.Event()
    running = asyncio.create_task(
        PriceUpdates(sql.fetch, usage, Rollups(), 60.0).run(stop)
    )
    await sql.used.wait()
    use(usage, "late")
    stop.set()
    await asyncio.wait_for(running, 60)
    assert "put_unpriced_model" in [name for name, _ in sql.ran]
