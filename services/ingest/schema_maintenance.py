"""What the database needs beside rows: its schema at the start, and hour by hour
partitions made ahead and days dropped that are kept no longer. Several replicas may
do it: the store takes a lock."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Protocol

import structlog

from libs.common.errors import StoreAway
from libs.common.runtime.lifecycle import wait_for_stop
from libs.common.store.interface import Price, SchemaTooNew
from services.ingest.backoff import Backoff

log = structlog.get_logger()

EVERY_S = 3600.0
# A long query keeps a day from being dropped; its end is not waited for.
FORGET_TRIES = 5


class Schema(Protocol):
    """What upkeep needs of the store."""

    async def migrate(self) -> int: ...

    async def make_partitions(self, today: date) -> int: ...

    async def drop_before(self, day: date) -> int: ...

    async def put_prices(self, prices: Sequence[Price]) -> None: ...


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often, and what is kept: `keep_days` of None keeps all."""

    keep_days: int | None = None
    every_s: float = EVERY_S
    backoff: Backoff = field(default_factory=Backoff)


class Upkeep:
    def __init__(
        self,
        store: Schema,
        today: Callable[[], date],
        rhythm: Rhythm | None = None,
        prices: Sequence[Price] | None = None,
    ) -> None:
        self._store = store
        self._today = today
        self._rhythm = rhythm or Rhythm()
        self._prices = prices
        self.prepared = asyncio.Event()
        self.refusal: SchemaTooNew | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Migrate, then keep partitions ahead until `stop`. A database that is
        away is waited for; one with a newer schema is left alone: then this loop
        ends, and with it the process, and `refusal` says why."""
        try:
            await self._until_done(stop, self._migrate)
        except SchemaTooNew as error:
            self.refusal = error
            return
        await self._until_done(stop, self._price)
        while not stop.is_set():
            await self._until_done(stop, self._partition)
            await self._until_done(stop, self._forget, tries=FORGET_TRIES)
            await wait_for_stop(stop, self._rhythm.every_s)

    def then(
        self, loop: Callable[[asyncio.Event], Awaitable[None]]
    ) -> Callable[[asyncio.Event], Awaitable[None]]:
        """`loop`, begun when the schema is there."""

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
        log.info("schema is up to date", action="migrated", version=version)
        # Not later: rows whose day is not there yet have the default partition.
        self.prepared.set()

    async def _price(self) -> None:
        if self._prices is not None:
            await self._store.put_prices(self._prices)
            log.info("took prices", action="prices_taken", count=len(self._prices))

    async def _partition(self) -> None:
        made = await self._store.make_partitions(self._today())
        if made:
            log.info("made partitions", action="partitions_made", count=made)

    async def _forget(self) -> None:
        if self._rhythm.keep_days is None:
            return
        day = self._today() - timedelta(days=self._rhythm.keep_days)
        dropped = await self._store.drop_before(day)
        if dropped:
            log.info("dropped old days", action="dropped", before=f"{day}", n=dropped)

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
                log.warning("sql is away", action="store_away", error=str(error))
            pause_s = self._rhythm.backoff.pause_s(failures, random.random())  # noqa: S311 - jitter
            await wait_for_stop(stop, pause_s)
            failures += 1
        return None
