"""That this gateway lives: its heartbeat, and what it does on each beat."""

import asyncio
from collections.abc import Collection

import structlog

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.redis_client import SharedConnection
from libs.common.routing import RoutingFunctions
from services.gateway.directory import Directory
from services.gateway.outbox import Outbox

log = structlog.get_logger()

EAGER_S = 0.05
SWEEP_EVERY = 30  # beats between two looks for leases nobody knows


class Heart:
    """Each beat says that the gateway lives, reads a changed catalogue, sends
    what the outbox holds and, after a lost connection, drops leases whose
    request is over: an acquire may have been granted to nobody."""

    def __init__(
        self,
        gateway_id: str,
        redis: SharedConnection,
        routing: RoutingFunctions,
        directory: Directory,
        outbox: Outbox,
        active: Collection[str],
    ) -> None:
        self._gateway_id = gateway_id
        self._redis = redis
        self._routing = routing
        self._directory = directory
        self._outbox = outbox
        self._active = active
        self._connections = 0
        self._beats = 0

    async def run(self, interval_s: float) -> None:
        while True:
            try:
                await self.beat()
            except (RedisAway, NoCatalogue) as cause:
                log.debug("no beat", action="beat_missed", cause=str(cause))
            except Exception:
                # A gateway that does not beat would be taken for dead.
                log.exception("no beat", action="beat_failed")
            # Without a catalogue nothing can be served: look often.
            await asyncio.sleep(interval_s if self._directory.known else EAGER_S)

    async def beat(self) -> None:
        """Raises `RedisAway` or `NoCatalogue`."""
        version = await self._routing.heartbeat(self._gateway_id)
        if version is None:
            raise NoCatalogue
        if version != self._directory.version:
            await self._directory.refresh()
        await self._outbox.flush()
        self._beats += 1
        lost = self._connections != self._redis.connections
        if lost or self._beats % SWEEP_EVERY == 0:
            self._connections = self._redis.connections
            await self._drop_unknown()

    async def _drop_unknown(self) -> None:
        held = await self._routing.held(self._gateway_id)
        unknown = [request for request in held if request not in self._active]
        if unknown:
            dropped = await self._routing.abandon(self._gateway_id, unknown)
            log.info("leases dropped", action="leases_dropped", leases=dropped)
