"""Serves checks requested through the admin API. The router puts an order into a queue
in Redis; one health service takes it and writes the result there."""

import asyncio
import json

import structlog

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.redis.check_queue import Orders
from libs.common.runtime.lifecycle import wait_for_stop
from services.health.key_test import KeyTester
from services.health.prober import Check, Prober

log = structlog.get_logger()

PAUSE_S = 1.0  # before a retry while Redis is unavailable


class CheckQueueWorker:
    """Takes orders from the queue, one at a time."""

    def __init__(self, orders: Orders, prober: Prober, key_tester: KeyTester) -> None:
        self._orders = orders
        self._prober = prober
        self._key_tester = key_tester

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                order = await self._orders.take()
                if order is not None:
                    await self._serve(order)
            except (RedisAway, NoCatalogue):
                await wait_for_stop(stop, PAUSE_S)

    async def _serve(self, order: str) -> None:
        wanted = order.partition(" ")[2]
        if wanted:
            await self._orders.answer(order, await self._key_tester.test(wanted))
            return
        checks = await self._prober.check_all()
        await self._orders.answer(order, json.dumps([_shown(c) for c in checks]))
        log.info(
            "checked all resources on request",
            action="checked_on_demand",
            checks=len(checks),
        )


def _shown(check: Check) -> dict[str, object]:
    return {
        "resource_id": check.resource_id,
        "health": check.health,
        "verdict": check.verdict.kind,
        "cause": check.verdict.cause,
        "latency_ms": check.verdict.latency_ms,
    }
