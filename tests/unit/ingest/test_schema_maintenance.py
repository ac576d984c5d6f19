import asyncio
from collections.abc import Sequence
from datetime import date, datetime

import pytest

from libs.common.contracts.prices import Price
from libs.common.errors import StoreAway
from libs.common.store.interface import SchemaTooNew
from services.ingest.backoff import Backoff
from services.ingest.schema_maintenance import (
    DROP_ATTEMPTS,
    MaintenanceOptions,
    SchemaMaintenance,
)
from tests.support.processes.waiting import eventually

TODAY = date(2026, 1, 2)


class FakeSchema:
    """A database that is away for its first `failures` calls."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls: list[object] = []

    async def migrate(self) -> int:
        self._answer("migrate")
        return 1

    async def make_partitions(self, today: date) -> int:
        self._answer(today)
        return 4

    async def drop_before(self, day: date) -> int:
        self._answer(("drop", day))
        return 1

    async def drop_minutes(self, before: datetime) -> None:
        self._answer("minutes")

    async def put_prices(self, prices: Sequence[Price]) -> None:
        self._answer(tuple(prices))

    def _answer(self, call: object) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreAway
        self.calls.append(call)


def maintenance(schema: FakeSchema, keep_days: int | None = None) -> SchemaMaintenance:
    options = MaintenanceOptions(
        keep_days, every_s=0.001, backoff=Backoff(0.001, 0.001)
    )
    return SchemaMaintenance(schema, lambda: TODAY, options)


@pytest.mark.asyncio
async def test_migrates_once_and_partitions_again_and_again() -> None:
    schema, stop = FakeSchema(failures=3), asyncio.Event()
    running = asyncio.create_task(maintenance(schema).run(stop))

    async def partitioned_twice() -> bool:
        return len(schema.calls) >= 5

    await eventually(partitioned_twice)
    stop.set()
    await running
    assert schema.calls[:5] == ["migrate", TODAY, "minutes", TODAY, "minutes"]


@pytest.mark.asyncio
async def test_forgets_what_is_older_than_is_kept() -> None:
    schema, stop = FakeSchema(), asyncio.Event()
    running = asyncio.create_task(maintenance(schema, keep_days=30).run(stop))

    async def forgot() -> bool:
        return len(schema.calls) >= 3

    await eventually(forgot)
    stop.set()
    await running
    assert schema.calls[2] == ("drop", date(2025, 12, 3))


@pytest.mark.asyncio
async def test_a_day_that_cannot_go_keeps_nobody_from_making_others() -> None:
    class Read(FakeSchema):
        tries = 0

        async def drop_before(self, day: date) -> int:
            self.tries += 1
            raise StoreAway("canceling statement due to lock timeout")

    schema, stop = Read(), asyncio.Event()
    running = asyncio.create_task(maintenance(schema, keep_days=30).run(stop))

    async def partitioned_twice() -> bool:
        return schema.calls.count(TODAY) >= 2

    await eventually(partitioned_twice)
    stop.set()
    await running
    assert schema.tries >= DROP_ATTEMPTS


@pytest.mark.asyncio
async def test_other_loops_begin_when_the_schema_is_there() -> None:
    kept, stop, began = maintenance(FakeSchema()), asyncio.Event(), asyncio.Event()

    async def loop(stop: asyncio.Event) -> None:
        assert kept.prepared.is_set()
        began.set()
        await stop.wait()

    waiting = asyncio.ensure_future(kept.then(loop)(stop))
    keeping = asyncio.create_task(kept.run(stop))
    await asyncio.wait_for(began.wait(), 60)
    stop.set()
    await asyncio.gather(waiting, keeping)


@pytest.mark.asyncio
async def test_stops_while_the_database_is_away() -> None:
    kept, stop = maintenance(FakeSchema(failures=10**9)), asyncio.Event()

    async def loop(_: asyncio.Event) -> None:
        raise AssertionError("must not begin")

    both = asyncio.gather(kept.then(loop)(stop), kept.run(stop))
    stop.set()
    await asyncio.wait_for(both, 60)
    assert not kept.prepared.is_set()


@pytest.mark.asyncio
async def test_a_newer_schema_ends_it() -> None:
    class Newer(FakeSchema):
        async def migrate(self) -> int:
            raise SchemaTooNew

    kept = maintenance(Newer())
    await kept.run(asyncio.Event())
    assert isinstance(kept.refusal, SchemaTooNew)
    assert not kept.prepared.is_set()
