"""`/healthz`, `/readyz` and `/metrics` of the router."""

import asyncio
from collections.abc import Awaitable, Callable

import falcon
import prometheus_client
from falcon.asgi import Response

from libs.common.contracts.events import Row
from libs.common.errors import ProxyError
from libs.common.runtime.probes import Readiness, readiness_body
from libs.common.store.prices import unpriced_problem
from services.router.admin.ledger import Audited
from services.router.admin.schemas.state import AdminState
from services.router.api.operation import Operation
from services.router.metrics import measure

PATIENCE_S = 2.0  # timeout of the database check


class Healthz:
    @Operation()
    async def on_get(self) -> dict[str, str]:
        """Is the process alive?"""
        return {"status": "alive"}


class Readyz:
    """`published`: are the functions and the catalogue in Redis?"""

    def __init__(
        self,
        published: Callable[[], bool],
        ping_store: Callable[[], Awaitable[None]],
        unpriced: Callable[[], Awaitable[list[Row]]],
    ) -> None:
        self._published = published
        self._ping_store = ping_store
        self._unpriced = unpriced

    @Operation()
    async def on_get(self, resp: Response) -> bytes:
        """Is the service ready? Lists what is degraded."""
        readiness = await self._readiness()
        resp.status = falcon.HTTP_200 if readiness.ok else falcon.HTTP_503
        return readiness_body(readiness)

    async def _readiness(self) -> Readiness:
        """Ready while gateways can route by what this router publishes. Only history
        needs the database."""
        degraded = []
        published = self._published()
        if not published:
            degraded.append("redis: the catalogue cannot be published")
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._ping_store()
        except (ProxyError, TimeoutError):
            degraded.append("database: unreachable, no history")
        else:
            degraded += await self._of_prices()
        return Readiness(ok=published, degraded=tuple(degraded))

    async def _of_prices(self) -> list[str]:
        """Requests are served all the same, but cost nothing in any sum."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                rows = await self._unpriced()
        except (ProxyError, TimeoutError):
            return []
        problem = unpriced_problem([row["model"] for row in rows])
        return [] if problem is None else [problem]


class Metrics:
    def __init__(
        self,
        state: Callable[[], Awaitable[AdminState]],
        auditor: Audited,
        oldest_s: Callable[[], Awaitable[float | None]],
    ) -> None:
        self._state = state
        self._auditor = auditor
        self._oldest_s = oldest_s

    @Operation(media=prometheus_client.CONTENT_TYPE_LATEST)
    async def on_get(self) -> bytes:
        """Prometheus metrics."""
        state = await self._state()
        measure(state, self._auditor.last.accounts, await self._oldest_s())
        return prometheus_client.generate_latest()
