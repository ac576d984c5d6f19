"""Maintains the database: migrates the schema at the start, then creates partitions
ahead and deletes expired days every hour. Several replicas may do so, as the store
locks."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

import structlog

from libs.common.contracts.prices import Price
from libs.common.errors import StoreAway
from libs.common.runtime.lifecycle import wait_for_stop
from libs.common.store.interface import SchemaTooNew
from libs.common.store.rollups import MINUTES_KEPT
from services.ingest.backoff import Backoff

log = structlog.get_logger()

EVERY_S = 3600.0
# A long query blocks the deletion of a day; give up and retry in the next hour.
DROP_ATTEMPTS = 5


class Schema(Protocol):
    """The methods of a store that maintenance uses."""

    async def migrate(self) -> int: ...

    async def make_partitions(self, today: date) -> int: ...

    async def drop_before(self, day: date) -> int: ...

    async def drop_minutes(self, before: datetime) -> None: ...

    async def put_prices(self, prices: Sequence[Price]) -> None: ...


@dataclass(frozen=True, slots=True)
class MaintenanceOptions:
    """Options. `keep_days` is the retention; None keeps all days."""

    keep_days: int | None = None
    every_s: float = EVERY_S
    backoff: Backoff = field(default_factory=Backoff)


class SchemaMaintenance:
    def __init__(
        self,
        store: Schema,
        today: Callable[[], date],
        options: MaintenanceOptions | None = None,
        prices: Sequence[Price] | None = None,
    ) -> None:
        self._store = store
        self._today = today
        self._options = options or MaintenanceOptions()
        self._prices = prices
        self.prepared = asyncio.Event()
        self.refusal: SchemaTooNew | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Migrate, then maintain partitions until `stop`. Retries while the database is
        unavailable. If its schema is too new, `refusal` is set and the loop returns,
        which ends the process."""
        try:
            await self._until_done(stop, self._migrate)
        except SchemaTooNew as error:
            self.refusal = error
            return
        while not stop.is_set():
            await self._until_done(stop, self._partition)
            await self._until_done(stop, self._drop_old_days, tries=DROP_ATTEMPTS)
            await self._until_done(stop, self._drop_minutes, tries=DROP_ATTEMPTS)
            await wait_for_stop(stop, self._options.every_s)

    def then(
        self, loop: Callable[[asyncio.Event], Awaitable[None]]
    ) -> Callable[[asyncio.Event], Awaitable[None]]:
        """Return a loop that starts `loop` after the migration."""

        async def run(stop: asyncio.Event) -> None:
            waits = [
                asyncio.ensure_future(event.wait()) for event in (self.prepared, stop)
            ]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            if self.prepared.is_set():
                await loop(stop)

        return run

    async def _migrate(self) -> None:
        version = await self._store.migrate()
        log.info("the schema is up to date", action="migrated", version=version)
        await self._price()
        # Before partitions exist: rows without one go to the default partition.
        self.prepared.set()

    async def _price(self) -> None:
        if self._prices is not None:
            await self._store.put_prices(self._prices)
            log.info(
                "stored the price list", action="prices_taken", count=len(self._prices)
            )

    async def _partition(self) -> None:
        made = await self._store.make_partitions(self._today())
        if made:
            log.info("created partitions", action="partitions_made", count=made)

    async def _drop_old_days(self) -> None:
        if self._options.keep_days is None:
            return
        day = self._today() - timedelta(days=self._options.keep_days)
        dropped = await self._store.drop_before(day)
        if dropped:
            log.info("deleted old days", action="dropped", before=f"{day}", n=dropped)

    async def _drop_minutes(self) -> None:
        await self._store.drop_minutes(datetime.now(UTC) - MINUTES_KEPT)

    async def _until_done(
        self,
        stop: asyncio.Event,
        work: Callable[[], Awaitable[None]],
        tries: float = math.inf,
    ) -> None:
        failures = 0
        while not stop.is_set() and failures < tries:
            try:
                return await work()
            except StoreAway as error:
                log.warning(
                    "the database is unavailable",
                    action="store_away",
                    error=str(error),
                )
            pause_s = self._options.backoff.pause_s(failures, random.random())  # noqa: S311 - jitter
            await wait_for_stop(stop, pause_s)
            failures += 1
        return None
