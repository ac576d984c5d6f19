"""`/healthz`, `/readyz` and `/metrics` of the router."""

import asyncio
from collections.abc import Awaitable, Callable

import falcon
import prometheus_client
from falcon.asgi import Response
from prometheus_client import Gauge

from libs.common.contracts.catalogue import HealthState, ResourceState
from libs.common.errors import ProxyError
from libs.common.runtime.probes import Readiness, readiness_body
from services.router.admin.schemas.state import AdminState
from services.router.api.operation import Operation

PATIENCE_S = 2.0  # timeout of the database check

IN_FLIGHT = Gauge(
    "proxy_resource_in_flight", "Leases held, over all gateways.", ["resource"]
)
AVAILABLE = Gauge(
    "proxy_resource_available",
    "0 during a cooldown or while the upstream refuses the key.",
    ["resource"],
)
QUEUE = Gauge("proxy_queue_depth", "Telemetry events that are not stored yet.")


class Healthz:
    @Operation()
    async def on_get(self) -> dict[str, str]:
        """Is the process alive?"""
        return {"status": "alive"}


class Readyz:
    """`published`: are the functions and the catalogue in Redis?"""

    def __init__(
        self, published: Callable[[], bool], ping_store: Callable[[], Awaitable[None]]
    ) -> None:
        self._published = published
        self._ping_store = ping_store

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
        return Readiness(ok=published, degraded=tuple(degraded))


class Metrics:
    def __init__(self, state: Callable[[], Awaitable[AdminState]]) -> None:
        self._state = state

    @Operation(media=prometheus_client.CONTENT_TYPE_LATEST)
    async def on_get(self) -> bytes:
        """Prometheus metrics."""
        _measure(await self._state())
        return prometheus_client.generate_latest()


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
