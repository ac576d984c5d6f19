"""`GET /admin/state`: what the proxy is doing now; and the same as a stream of
server-sent events under `/admin/events`."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Protocol

from falcon.asgi import Request, Response, SSEvent

from libs.common.contracts import ResourceState, Row
from libs.common.errors import NoCatalogue, RedisAway, StoreAway
from libs.common.store.port import HistoryQuery, Store

RECENT = 50
EVERY_S = 1.0
LONGEST_S = 300.0  # clients come back; a connection nobody reads does not stay


class Routing(Protocol):
    async def states(self) -> list[ResourceState]: ...

    async def affinity_count(self) -> int: ...


class Backlog(Protocol):
    async def depth(self) -> int: ...


class Overview:
    """Gathers the state. What is away is named in `degraded`, never an error:
    an operator needs the rest most when something is down."""

    def __init__(
        self, routing: Routing, backlog: Backlog, store: Store, *, open_admin: bool
    ) -> None:
        self._routing = routing
        self._backlog = backlog
        self._store = store
        self._open_admin = open_admin

    async def gather(self) -> dict[str, Any]:
        degraded: list[str] = []
        resources, affinities, depth = await self._live(degraded)
        decisions, stored, dead = await self._stored(degraded)
        in_flight = sum(resource.in_flight for resource in resources)
        return {
            "resources": [resource.model_dump(mode="json") for resource in resources],
            "decisions": decisions,
            "affinity_count": affinities,
            "queue_depth": depth,
            "ledger": {
                "stored": stored,
                "pending": depth,
                "in_flight": in_flight,
                "dead_lettered": dead,
            },
            "degraded": degraded,
            "admin": "open" if self._open_admin else "token",
            "timestamp": _now(),
        }

    async def _live(
        self, degraded: list[str]
    ) -> tuple[list[ResourceState], int | None, int | None]:
        try:
            return (
                await self._routing.states(),
                await self._routing.affinity_count(),
                await self._backlog.depth(),
            )
        except RedisAway:
            degraded.append("redis: unreachable")
        except NoCatalogue:
            degraded.append("redis: no catalogue yet")
        return [], None, None

    async def _stored(
        self, degraded: list[str]
    ) -> tuple[list[Row], int | None, int | None]:
        try:
            page = await self._store.history(HistoryQuery("decisions", limit=RECENT))
            counts = await self._store.counts()
        except StoreAway:
            degraded.append("database: unreachable")
            return [], None, None
        return list(page.rows), counts.requests, counts.dead_letters


class State:
    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    async def on_get(self, _: Request, resp: Response) -> None:
        resp.media = await self._overview.gather()


class Events:
    """The state each second, for a dashboard. Falcon watches for the client's
    leaving while it sends events."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    async def on_get(self, _: Request, resp: Response) -> None:
        resp.sse = self._events()

    async def _events(self) -> AsyncIterator[SSEvent]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + LONGEST_S
        while loop.time() < ends:
            state = await self._overview.gather()
            yield SSEvent(event="state", text=json.dumps(state))
            await asyncio.sleep(EVERY_S)


def _now() -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return now.replace("+00:00", "Z")
