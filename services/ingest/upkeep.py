"""What the database needs beside rows: its schema at the start, and partitions
made ahead, hour by hour. Several replicas may do it: the store takes a lock."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Protocol

import structlog

from libs.common.errors import StoreAway
from libs.common.lifecycle import wait_for_stop
from services.ingest.backoff import Backoff

log = structlog.get_logger()

EVERY_S = 3600.0


class Schema(Protocol):
    """What upkeep needs of the store."""

    async def migrate(self) -> int: ...

    async def make_partitions(self, today: date) -> int: ...


class Upkeep:
    def __init__(
        self,
        store: Schema,
        today: Callable[[], date],
        backoff: Backoff | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._store = store
        self._today = today
        self._backoff = backoff or Backoff()
        self._every_s = every_s
        self.prepared = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Migrate, then keep partitions ahead until `stop`. A database that is
        away is waited for; one with a newer schema ends the process."""
        await self._until_done(stop, self._migrate)
        while not stop.is_set():
            await self._until_done(stop, self._partition)
            await wait_for_stop(stop, self._every_s)

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

    async def _partition(self) -> None:
        made = await self._store.make_partitions(self._today())
        if made:
            log.info("made partitions", action="partitions_made", count=made)

    async def _until_done(
        self, stop: asyncio.Event, work: Callable[[], Awaitable[None]]
    ) -> None:
        failures = 0
        while not stop.is_set():
            try:
                return await work()
            except StoreAway as error:
                log.warning("sql is away", action="store_away", error=str(error))
            pause_s = self._backoff.pause_s(failures, random.random())  # noqa: S311 - jitter
            await wait_for_stop(stop, pause_s)
            failures += 1
        return None
