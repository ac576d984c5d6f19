"""Ends the leases of gateways that stopped sending heartbeats, so that their load is
removed and their requests enter the ledger. One router at a time. `reap` in
services/router/functions/leases.lua does it, in Redis. Other gateways recover the
journal of a crashed one (services/gateway/ledger/journal/recovery.py)."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

import structlog
from prometheus_client import Counter

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.redis.leader import Leadership

log = structlog.get_logger()

EVERY_S = 1.0
STRAYS_EVERY = (
    30  # rounds between searches for leases of gateways without any heartbeat
)
REAPED = Counter(
    "proxy_router_reaped_leases_total", "Leases of silent gateways that were ended."
)


class Leases(Protocol):
    async def reap(self, silent_ms: int, *, strays: bool = False) -> int: ...


class Reaper:
    def __init__(
        self,
        leases: Leases,
        leadership: Leadership,
        silent_ms: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._leases = leases
        self._leadership = leadership
        self._silent_ms = silent_ms
        self._clock = clock
        self._not_before = 0.0
        self._rounds = 0

    async def run(self) -> None:
        """Runs forever. A failed round is retried by the next one."""
        while True:
            await self.step()
            await asyncio.sleep(EVERY_S)

    async def step(self) -> int:
        """One round. Returns the number of leases ended."""
        try:
            if await self._leadership.hold() and self._clock() >= self._not_before:
                self._rounds += 1
                strays = self._rounds % STRAYS_EVERY == 1
                ended = await self._leases.reap(self._silent_ms, strays=strays)
                return self._note(ended)
        except NoCatalogue:
            log.debug("no catalogue yet, leases not reaped", action="reaping_missed")
        except RedisAway:
            # Gateways could not send heartbeats either: restart their timeouts.
            self._not_before = self._clock() + self._silent_ms / 1000
        return 0

    def _note(self, ended: int) -> int:
        if ended:
            REAPED.inc(ended)
            log.warning(
                "leases of silent gateways ended", action="leases_reaped", leases=ended
            )
        return ended
