"""`/healthz`, `/readyz`, `/metrics` of the router."""

import asyncio
from collections.abc import Awaitable, Callable

import falcon
import prometheus_client
from falcon.asgi import Request, Response
from prometheus_client import Gauge

from libs.common.contracts.catalogue import HealthState, ResourceState
from libs.common.errors import ProxyError
from libs.common.runtime.probes import Readiness, readiness_body
from services.router.admin.shapes import AdminState

PATIENCE_S = 2.0

IN_FLIGHT = Gauge(
    "proxy_resource_in_flight", "Leases held, over all gateways.", ["resource"]
)
AVAILABLE = Gauge(
    "proxy_resource_available",
    "0 while the resource cools down or its key is refused.",
    ["resource"],
)
QUEUE = Gauge("proxy_queue_depth", "Telemetry events that are not stored yet.")


class Probes:
    """`published`: are the functions and the catalogue in Redis?"""

    def __init__(
        self,
        published: Callable[[], bool],
        ping_store: Callable[[], Awaitable[None]],
        state: Callable[[], Awaitable[AdminState]],
    ) -> None:
        self._published = published
        self._ping_store = ping_store
        self._state = state

    async def on_get_healthz(self, _: Request, resp: Response) -> None:
        resp.media = {"status": "alive"}

    async def on_get_readyz(self, _: Request, resp: Response) -> None:
        readiness = await self._readiness()
        resp.status = falcon.HTTP_200 if readiness.ok else falcon.HTTP_503
        resp.content_type = "application/json"
        resp.data = readiness_body(readiness)

    async def on_get_metrics(self, _: Request, resp: Response) -> None:
        _measure(await self._state())
        resp.content_type = prometheus_client.CONTENT_TYPE_LATEST
        resp.data = prometheus_client.generate_latest()

    async def _readiness(self) -> Readiness:
        """Ready while gateways can route by what this router publishes; without
        the database it is, but for history."""
        degraded = []
        published = self._published()
        if not published:
            degraded.append("redis: the catalogue cannot be published")
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._ping_store()
        except (ProxyError, TimeoutError):
            degraded.append("database: unreachable, no history")
        return Readiness(ok=published, degraded=tuple(degraded))


def _measure(state: AdminState) -> None:
    IN_FLIGHT.clear()
    AVAILABLE.clear()
    for resource in state.resources:
        IN_FLIGHT.labels(resource.id).set(resource.in_flight)
        AVAILABLE.labels(resource.id).set(_available(resource))
    if state.queue_depth is not None:
        QUEUE.set(state.queue_depth)


def _available(resource: ResourceState) -> bool:
    return resource.health in {HealthState.HEALTHY, HealthState.UNKNOWN}
