"""What is impaired, as a router sees it: logs when it begins and when it ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from libs.common.errors import RedisAway
from libs.common.runtime.conditions import Conditions
from libs.common.runtime.service_gauges import DEGRADED
from libs.common.store.prices import unpriced_problem
from services.router.admin.ledger import Audited, Reading
from services.router.admin.schemas.state import AdminState
from services.router.metrics import is_available

log = structlog.get_logger()

EVERY_S = 5.0
OLD_S = 30.0  # events are normally stored within a second
PARTS = (
    "redis", "database", "ingest", "health", "resources", "gateways", "ledger",
    "prices", "shards",
)  # fmt: skip


class Backlog(Protocol):
    async def oldest_ms(self) -> int | None: ...


class RouterConditions:
    """Looks at all parts of the proxy."""

    def __init__(
        self,
        state: Callable[[], Awaitable[AdminState]],
        auditor: Audited,
        backlog: Backlog,
        prober: Callable[[], Awaitable[str | None]] | None,
        of_shards: Callable[[], str | None],
    ) -> None:
        """`prober`: which health service leads; None if active checks are disabled.
        `of_shards`: what is wrong with the shards of the stack."""
        self._state = state
        self._auditor = auditor
        self._backlog = backlog
        self._prober = prober
        self._of_shards = of_shards
        self._conditions = Conditions()
        for part in PARTS:
            DEGRADED.labels(part).set(0)

    async def run(self) -> None:
        """Runs forever."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                self.note(await self.problems())
            except Exception:
                log.exception("looking at the state failed", action="look_failed")

    def note(self, problems: dict[str, str]) -> None:
        """Log and measure what is impaired. Parts with a name in them, as
        `gateway x`, count as their kind."""
        self._conditions.note(problems)
        kinds = {part.partition(" ")[0] for part in problems}
        for part in PARTS:
            DEGRADED.labels(part).set(part in kinds)

    async def problems(self) -> dict[str, str]:
        """The problem of each impaired part."""
        state = await self._state()
        problems = _of_state(state) | _of_reading(self._auditor.last)
        if "redis" not in problems:
            problems |= await self._of_redis()
        if problem := self._of_shards():
            problems["shards"] = problem
        return problems

    async def oldest_s(self) -> float | None:
        """The age of the oldest event that is not stored yet: 0 if there is none, None
        while Redis is away."""
        try:
            oldest_ms = await self._backlog.oldest_ms()
        except RedisAway:
            return None
        return 0.0 if oldest_ms is None else max(time.time() - oldest_ms / 1000, 0.0)

    async def _of_redis(self) -> dict[str, str]:
        problems = {}
        oldest_s = await self.oldest_s()
        if oldest_s is not None and oldest_s > OLD_S:
            problems["ingest"] = f"events wait since {oldest_s:.0f} s to be stored"
        try:
            if self._prober is not None and await self._prober() is None:
                problems["health"] = "no health service checks the upstream keys"
        except RedisAway:
            pass  # the next look says so
        return problems


def _of_state(state: AdminState) -> dict[str, str]:
    problems = {}
    if state.queue_depth is None:
        problems["redis"] = "Redis is unreachable, or has no catalogue"
    if state.ledger.stored is None:
        problems["database"] = "the database is unreachable"
    if state.ledger.problems:
        problems["ledger"] = "; ".join(state.ledger.problems)[:500]
    if state.unpriced_models:
        problems["prices"] = unpriced_problem(state.unpriced_models) or ""
    if state.resources and not any(map(is_available, state.resources)):
        problems["resources"] = "every upstream key is cooling down or refused"
    return problems


def _of_reading(reading: Reading) -> dict[str, str]:
    return {
        f"gateways {account.id}": "no heartbeat, and its journal was not recovered"
        for account in reading.accounts
        if account.state == "silent"
    }
