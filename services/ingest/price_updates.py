"""Reads prices that the admin API set, and stores which models have none."""

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import structlog

from libs.common.contracts.prices import PriceList
from libs.common.errors import StoreAway
from libs.common.runtime.lifecycle import wait_for_stop
from libs.common.store.interface import Fetch
from libs.common.store.prices import read_price_list
from libs.common.store.rollups import Rollups
from libs.common.store.rows import iso
from services.ingest.usage import Usage

log = structlog.get_logger()

EVERY_S = 10.0
KEPT = timedelta(days=30)  # after the last request of a model


class PriceUpdates:
    def __init__(
        self, fetch: Fetch, usage: Usage, rollups: Rollups, every_s: float = EVERY_S
    ) -> None:
        self._fetch = fetch
        self._usage = usage
        self._rollups = rollups
        self._every_s = every_s

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.step()
            await wait_for_stop(stop, self._every_s)
        await self.step()

    async def step(self) -> None:
        """While the database is unavailable the prices stay as they are. What was noted
        of models without a price may be lost then; their next request notes them."""
        try:
            prices = PriceList(await read_price_list(self._fetch))
            self._usage.prices = self._rollups.prices = prices
            at = datetime.now(UTC)
            for model, unpriced in self._usage.take_unpriced().items():
                values = {"model": model, **asdict(unpriced), "at": iso(at)}
                await self._fetch("put_unpriced_model", values)
            await self._fetch("drop_unpriced_models", {"before": iso(at - KEPT)})
        except StoreAway as error:
            log.debug("prices not read", action="prices_missed", error=str(error))
