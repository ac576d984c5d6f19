"""Ends the leases of gateways that stopped sending heartbeats, so that their load is
removed and their requests enter the ledger. One router at a time.
services/router/functions/reaping.lua does it, in Redis, a part in each call. Other
gateways recover the journal of a crashed one
(services/gateway/ledger/journal/recovery.py)."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

import structlog
from prometheus_client import Counter

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.redis.leader import Leadership
from libs.common.routing.control import GoOn

log = structlog.get_logger()

EVERY_S = 1.0
# Rounds between searches for leases of gateways without any heartbeat, and for
# reservations without a lease.
STRAYS_EVERY = 30
PAUSE_S = 0.002  # between two calls: Redis is free for requests most of the time
REAPED = Counter(
    "proxy_router_reaped_leases_total", "Leases of silent gateways that were ended."
)


class Leases(Protocol):
    async def reap(
        self,
        silent_ms: int,
        *,
        strays: bool = False,
        go_on: GoOn,
        ended: Callable[[int], None],
    ) -> int: ...

    async def sweep(self, *, go_on: GoOn) -> None: ...


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
        self._ended = 0  # leases in this round
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
                return await self._reap(strays=strays)
        except NoCatalogue:
            log.debug("no catalogue yet, leases not reaped", action="reaping_missed")
        except RedisAway:
            # Gateways could not send heartbeats either: restart their timeouts.
            self._not_before = self._clock() + self._silent_ms / 1000
        return 0

    async def _reap(self, *, strays: bool) -> int:
        self._ended = 0
        go_on, reap = self._go_on, self._leases.reap
        try:
            await reap(self._silent_ms, strays=strays, go_on=go_on, ended=self._count)
        finally:
            if self._ended:
                log.warning(
                    "leases of silent gateways ended",
                    action="leases_reaped",
                    leases=self._ended,
                )
        if strays:
            await self._leases.sweep(go_on=go_on)
        return self._ended

    async def _go_on(self) -> bool:
        """Many leases take longer than a leader may be silent."""
        await asyncio.sleep(PAUSE_S)
        return await self._leadership.hold()

    def _count(self, ended: int) -> None:
        REAPED.inc(ended)
        self._ended += ended
