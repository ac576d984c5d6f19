"""Requests that wait because what could serve them is at its limit. Their order is that
of the queues in Redis (services/router/functions/queue.lua), over all gateways. Here
they wait for their turn: one task asks for all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.types import Ask, Decision, Place, Queued, Refusal
from services.gateway import metrics

# A request asks again after this long in any case: Redis may have forgotten it.
RENEW_S = 2.0
AWAY_S = 0.2  # between two calls while Redis is away
CLOSEST_S = 0.002  # between two calls, however many requests end


class Routing(Protocol):
    def turns(
        self, gateway_id: str, classes: Iterable[str]
    ) -> Awaitable[tuple[float, list[str]]]: ...

    def leave(self, entry: str, failed: Callable[[], None]) -> None: ...


class Decides(Protocol):
    async def decide(self, ask: Ask, ids: Sequence[str]) -> Decision: ...


class _Waiter:
    """A request that waits. `waits_for`: its class, once Redis named it."""

    __slots__ = ("turn", "waits_for")

    def __init__(self) -> None:
        self.turn = asyncio.Event()
        self.waits_for = ""


class WaitingRoom:
    """The requests of this gateway that wait."""

    def __init__(
        self,
        routing: Routing,
        selector: Decides,
        gateway_id: str,
        longest_s: float,
        request_s: float,
    ) -> None:
        """`longest_s`: how long a request may wait. `request_s`: how long it may take
        as a whole."""
        self._routing = routing
        self._selector = selector
        self._gateway_id = gateway_id
        self._longest_s = longest_s
        self._request_s = request_s
        self.waiting: dict[str, _Waiter] = {}  # by request id
        # Entries that Redis may still have. While others of this gateway wait they do
        # not expire, and each keeps a place from them.
        self._unleft: set[str] = set()
        self._freed = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    def freed(self) -> None:
        """A request ended, so another one may have its turn."""
        self._freed.set()

    async def wait(
        self, ask: Ask, ids: Sequence[str], place: Place, age_s: float
    ) -> Decision:
        """The decision for a request when it has its turn. `place`: what it counts to.
        `age_s`: since it arrived. Raises as `Selector.decide` does, at last when its
        time is over."""
        now, end = asyncio.get_running_loop().time, "left"
        began = now()
        ends = began + min(self._longest_s, self._request_s - age_s)
        waiter = self.waiting[ask.request_id] = _Waiter()
        entry = place.entry(ask)
        self._unleft.discard(entry)  # its place counts again
        try:
            decision = await self._turn(waiter, ask, ids, place, began, ends)
            end = "served"
            return decision
        except Refusal:
            end = "refused"
            raise
        finally:
            del self.waiting[ask.request_id]
            if end != "served" or decision.degraded:
                self._leave(entry)
            metrics.queued.inc(end)
            metrics.queue_wait.observe(now() - began)

    async def _turn(
        self,
        waiter: _Waiter,
        ask: Ask,
        ids: Sequence[str],
        place: Place,
        began: float,
        ends: float,
    ) -> Decision:
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            left_ms = max(int((ends - now) * 1000), 0)
            waited_ms = int((now - began) * 1000)
            here = replace(place, left_ms=left_ms)
            asked = replace(ask, place=here, waited_ms=waited_ms)
            try:
                return await self._selector.decide(asked, ids)
            except Queued as queued:
                waiter.waits_for = queued.waits_for
            waiter.turn.clear()
            self._ask_for_turns()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_ms / 1000, RENEW_S)):
                    await waiter.turn.wait()

    def _ask_for_turns(self) -> None:
        if self._asking is None or self._asking.done():
            # If it fails, requests ask again by themselves, and then for turns.
            self._asking = asyncio.create_task(self._keep_asking())

    async def _keep_asking(self) -> None:
        """Asks whose turn it is, as long as requests wait: at the interval that Redis
        names, and as soon as a request of this gateway ended."""
        while self.waiting:
            self._freed.clear()
            interval_s = await self._wake()
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._freed.wait()
                await asyncio.sleep(CLOSEST_S)

    async def _wake(self) -> float:
        classes = {w.waits_for for w in self.waiting.values() if w.waits_for}
        try:
            interval_s, requests = await self._routing.turns(self._gateway_id, classes)
        except (RedisAway, NoCatalogue):
            # Each decides without Redis.
            interval_s, requests = AWAY_S, list(self.waiting)
        else:
            unleft, self._unleft = self._unleft, set()
            for entry in unleft:
                self._leave(entry)
        for request_id in requests:
            waiter = self.waiting.get(request_id)
            if waiter is not None:
                waiter.turn.set()
        return interval_s

    def _leave(self, entry: str) -> None:
        """If this fails, it is told again as soon as Redis answers."""
        self._routing.leave(entry, lambda: self._unleft.add(entry))
