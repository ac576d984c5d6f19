"""`GET /admin/state`: what the proxy is doing now."""

import asyncio
from dataclasses import asdict, dataclass
from time import time
from typing import Protocol

from libs.common.contracts.catalogue import (
    HealthState,
    Resource,
    ResourceState,
)
from libs.common.contracts.events import Row
from libs.common.errors import NoCatalogue, RedisAway, StoreAway
from libs.common.routing.types import Queue
from libs.common.store.interface import HistoryQuery, Page
from libs.common.store.prices import unpriced_problem
from libs.common.store.rows import iso_ms
from services.router.admin.explain import Configured
from services.router.admin.ledger import PATIENCE_S, Auditor, Backlog, summed
from services.router.admin.reasons import explained
from services.router.admin.schemas.state import AdminState, WaitingRequests
from services.router.api.operation import Operation

RECENT = 50
EVERY_S = 1.0


class Routing(Protocol):
    async def states(self) -> list[ResourceState]: ...

    async def affinity_count(self) -> int: ...

    async def queues(self) -> list[Queue]: ...


class Rows(Protocol):
    async def history(self, query: HistoryQuery) -> Page: ...

    async def unpriced(self) -> list[Row]: ...


@dataclass(frozen=True, slots=True)
class _Live:
    """State from Redis; the defaults hold while it is unreachable."""

    resources: tuple[ResourceState, ...]
    affinities: int | None = None
    depth: int | None = None
    waiting: tuple[WaitingRequests, ...] | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Stored:
    """State from SQL."""

    decisions: tuple[Row, ...] = ()
    unpriced: tuple[str, ...] = ()
    problem: str | None = None


class Overview:
    """Gathers the state. An unreachable service is listed in `degraded` instead of
    raising an error: operators need the rest most during an outage."""

    def __init__(
        self,
        routing: Routing,
        backlog: Backlog,
        store: Rows,
        auditor: Auditor,
        configured: Configured,
        *,
        open_admin: bool,
    ) -> None:
        self._routing = routing
        self._backlog = backlog
        self._store = store
        self._auditor = auditor
        self._configured = configured
        self._open_admin = open_admin
        self._gathering = asyncio.Lock()
        self._latest: AdminState | None = None
        self._latest_at = 0.0

    async def gather(self) -> AdminState:
        """The current state."""
        live, stored, reading = await asyncio.gather(
            self._live(), self._stored(), self._auditor.read()
        )
        return AdminState(
            shard=self._auditor.shard,
            resources=live.resources,
            decisions=stored.decisions,
            affinity_count=live.affinities,
            queue_depth=live.depth,
            waiting=live.waiting,
            ledger=summed(reading),
            degraded=tuple(
                filter(
                    None,
                    (live.problem, stored.problem, unpriced_problem(stored.unpriced)),
                )
            ),
            unpriced_models=stored.unpriced,
            admin="open" if self._open_admin else "token",
            timestamp=iso_ms(int(time() * 1000)),
        )

    async def shared(self) -> AdminState:
        """At most half a second old: many watchers cost as much as one."""
        clock = asyncio.get_running_loop().time
        async with self._gathering:
            if self._latest is None or clock() - self._latest_at > EVERY_S / 2:
                self._latest = await self.gather()
                self._latest_at = clock()
            return self._latest

    async def _live(self) -> _Live:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._ask_redis()
        except (RedisAway, TimeoutError):
            problem = "redis: unreachable, gateways route from their last snapshot"
        except NoCatalogue:
            problem = "redis: the resources are not there yet"
        resources = tuple(map(_unseen, self._configured.catalogue.resources))
        return _Live(resources=resources, problem=problem)

    async def _ask_redis(self) -> _Live:
        states = await self._routing.states()
        return _Live(
            resources=tuple(states),
            affinities=await self._routing.affinity_count(),
            depth=await self._backlog.depth(),
            waiting=tuple(
                WaitingRequests(**asdict(queue))
                for queue in await self._routing.queues()
            ),
        )

    async def _stored(self) -> _Stored:
        query = HistoryQuery("decisions", limit=RECENT)
        try:
            async with asyncio.timeout(PATIENCE_S):
                page = await self._store.history(query)
                unpriced = await self._store.unpriced()
        except (StoreAway, TimeoutError):
            return _Stored(problem="database: unreachable, events wait in Redis")
        names = tuple(row["model"] for row in unpriced)
        return _Stored(tuple(explained(page.rows)), names)


class State:
    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    @Operation(returns=AdminState)
    async def on_get(self) -> AdminState:
        """What the proxy is doing now."""
        return await self._overview.gather()


def _unseen(resource: Resource) -> ResourceState:
    """The state of a resource of which only the configuration is known."""
    configured = {"id", "name", "pool_id", "account_id", "weight"}
    return ResourceState(
        **resource.model_dump(include=configured),
        health=HealthState.UNKNOWN,
        cooldown_until=None,
        in_flight=0,
        requests=0,
        errors=0,
        last_latency_ms=None,
        last_error=None,
    )
