"""That this gateway lives: its heartbeat, and what it does on each beat."""

import asyncio
import time
from collections.abc import Mapping

import structlog

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.redis.shared_connection import SharedConnection
from libs.common.routing.functions import RoutingFunctions
from services.gateway.auth.authenticator import Authenticator
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.routing.catalogue import GatewayCatalogue

log = structlog.get_logger()

EAGER_S = 0.05
PUBLISH_EVERY = 10  # beats between two gateway events
SWEEP_EVERY = 30  # beats between two looks for leases nobody knows
AT_ONCE = 500  # leases, or owners, that one call gives back


class Heartbeat:
    """Each beat says that the gateway lives and how its books stand, reads a changed
    catalogue, sends events that Redis has not taken and, after a lost connection,
    drops leases whose request is over: an acquire may have been granted to nobody. A
    Redis that does not know the gateway has been emptied, or took it for dead: it is
    given back the leases that are in use and what is known of sessions and ids."""

    def __init__(  # noqa: PLR0913 - all that beats
        self,
        gateway_id: str,
        redis: SharedConnection,
        routing: RoutingFunctions,
        catalogue: GatewayCatalogue,
        delivery: JournalDelivery,
        in_flight: InFlight,
        authenticator: Authenticator,
    ) -> None:
        self._authenticator = authenticator
        self._gateway_id = gateway_id
        self._redis = redis
        self._routing = routing
        self._catalogue = catalogue
        self._delivery = delivery
        self._active: Mapping[str, Lifecycle] = in_flight.active
        self._offline = in_flight.offline
        self._connections = 0
        self._beats = 0
        self._owes = False  # Redis was emptied, and not all is given back yet

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
            await asyncio.sleep(interval_s if self._catalogue.known else EAGER_S)

    async def beat(self) -> None:
        """Raises `RedisAway` or `NoCatalogue`."""
        keeper, now_ms = self._delivery, int(time.time() * 1000)
        sent = keeper.sent_so_far()
        beat = await self._routing.heartbeat(self._gateway_id, keeper.report(now_ms))
        if beat.version is not None:
            # At once: what it says is of the connection that there is now.
            keeper.beat_answered(sent, beat)
            keeper.start_flush()
        await self._authenticator.refresh()
        if beat.version is None:
            raise NoCatalogue
        if beat.version != self._catalogue.version:
            await self._catalogue.refresh()
        lost = self._connections != self._redis.connections
        self._connections = self._redis.connections
        self._owes = self._owes or not beat.known
        if lost or self._owes:
            self._offline.redis_is_back()
            await self._resume(emptied=self._owes)
            self._owes = False
        await keeper.upkeep()
        self._beats += 1
        if self._beats % PUBLISH_EVERY == 0:
            keeper.publish(now_ms)
        if lost or self._beats % SWEEP_EVERY == 0:
            await self._drop_unknown()

    async def _resume(self, *, emptied: bool) -> None:
        leases = [
            lease
            for life in self._active.values()
            if (lease := life.lease()) is not None
        ]
        resumed = 0
        for start in range(0, len(leases), AT_ONCE):
            # Of the requests that are still under way by now.
            part = [x for x in leases[start:][:AT_ONCE] if x.request_id in self._active]
            resumed += await self._routing.resume(self._gateway_id, part)
        adopted = await self._give_back() if emptied else 0
        if resumed or adopted:
            log.warning(
                "state given back",
                action="state_resumed",
                leases=resumed,
                affinities=adopted,
            )

    async def _give_back(self) -> int:
        adopted = 0
        for sessions, ids in self._offline.remembered(AT_ONCE):
            adopted += await self._routing.adopt(sessions, ids)
        return adopted

    async def _drop_unknown(self) -> None:
        held = await self._routing.held(self._gateway_id)
        unknown = [request for request in held if request not in self._active]
        if unknown:
            dropped = await self._routing.abandon(self._gateway_id, unknown)
            log.info("leases dropped", action="leases_dropped", leases=dropped)
