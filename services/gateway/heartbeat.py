"""Sends heartbeats and runs the maintenance due on each one."""

import asyncio
import time
from collections.abc import Callable, Mapping

import structlog

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.redis.hot_connection import HotConnection
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.wire import WAITS_S
from libs.common.routing.functions import FIRST, Place, RoutingFunctions
from services.gateway.auth.authenticator import Authenticator
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.routing.offline import OfflineRouting

log = structlog.get_logger()

WITHOUT_CATALOGUE_S = 0.05  # the interval until there is a catalogue
PUBLISH_EVERY = 10  # heartbeats between two gateway events
SWEEP_EVERY = 30  # heartbeats between two searches for unknown leases
IMPAIRED_MS = 5_000  # how long a gateway counts as impaired after it said so
# Pages of leases that a heartbeat looks at. Redis needs up to a millisecond for each,
# and the next heartbeat must not be late.
PAGES_AT_ONCE = 20
AT_ONCE = 250  # leases, reservations or owners restored by one call


class Heartbeat:
    """Sends the gateway's heartbeats.

    Each one reports the ledger counters, reads a changed catalogue and key table, and
    sends undelivered events. After a lost connection it also drops leases without a
    request, because the answer to an acquire may have been lost. If Redis does not know
    the gateway (it was emptied, or the reaper removed the gateway), it restores the
    leases in use and the owners of sessions and ids."""

    def __init__(  # noqa: PLR0913 - the parts that need maintenance
        self,
        gateway_id: str,
        redis: HotConnection,
        routing: RoutingFunctions,
        catalogue: GatewayCatalogue,
        delivery: JournalDelivery,
        in_flight: InFlight,
        authenticator: Authenticator,
        keys: Keys = DEFAULT,
    ) -> None:
        self._impaired_key = keys.impaired(gateway_id)
        self._authenticator = authenticator
        self.impaired: Callable[[], tuple[str, ...]] = tuple  # parts, for the router
        self._gateway_id = gateway_id
        self._redis = redis
        self._routing = routing
        self._catalogue = catalogue
        self._delivery = delivery
        self._active: Mapping[str, Lifecycle] = in_flight.active
        self._offline: OfflineRouting = in_flight.offline
        self._connections = 0
        self._beats = 0
        self._restoring = False  # Redis lost state that is not restored yet
        # Where the search for unknown leases goes on; None: there is none.
        self._unchecked: Place | None = None

    async def run(self, interval_s: float) -> None:
        while True:
            try:
                await self.beat()
            except (RedisAway, NoCatalogue) as cause:
                log.debug("heartbeat missed", action="beat_missed", cause=str(cause))
            except Exception:
                # Without heartbeats the reaper would end this gateway's leases.
                log.exception("heartbeat failed", action="beat_failed")
            known = self._catalogue.known
            await asyncio.sleep(interval_s if known else WITHOUT_CATALOGUE_S)

    async def beat(self) -> None:
        """Sends one heartbeat. Raises `RedisAway` or `NoCatalogue`."""
        delivery, now_ms = self._delivery, int(time.time() * 1000)
        sent = delivery.sent_so_far()
        beat = await self._routing.heartbeat(self._gateway_id, delivery.report(now_ms))
        if beat.version is not None:
            # Before any await: the answer is about the current connection.
            delivery.beat_answered(sent, beat)
            delivery.start_flush()
        self._tell_impaired()
        await self._authenticator.refresh()
        if beat.version is None:
            raise NoCatalogue
        if beat.version != self._catalogue.version:
            await self._read_catalogue()
        lost = self._connections != self._redis.connections
        self._connections = self._redis.connections
        self._restoring = self._restoring or not beat.known
        if lost or self._restoring:
            self._offline.redis_is_back()
            await self._routing.doubt()
            await self._restore(emptied=self._restoring)
            self._restoring = False
        await delivery.upkeep()
        self._beats += 1
        if self._beats % PUBLISH_EVERY == 0:
            delivery.publish(now_ms)
        due = self._beats % SWEEP_EVERY == 0 and self._unchecked is None
        if lost or due:
            self._unchecked = FIRST
        if self._unchecked is not None:
            await self._drop_unknown(self._unchecked)

    async def _read_catalogue(self) -> None:
        if not self._catalogue.known:  # nothing was served yet
            # Until now another gateway may have been the only one, so that its reports
            # waited: twice at most, before it learns of this one.
            await asyncio.sleep(2 * WAITS_S)
        await self._catalogue.refresh()

    def _tell_impaired(self) -> None:
        """For `/admin/attention`. Its loss is harmless."""
        parts = self.impaired()
        if parts:
            key = self._impaired_key
            told = self._redis.call("SET", key, ",".join(parts), "PX", IMPAIRED_MS)
            told.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _restore(self, *, emptied: bool) -> None:
        leases = [
            lease
            for life in self._active.values()
            if (lease := life.lease()) is not None
        ]
        resumed = 0
        for start in range(0, len(leases), AT_ONCE):
            # Requests may have ended during the calls before.
            part = [x for x in leases[start:][:AT_ONCE] if x.request_id in self._active]
            resumed += await self._routing.resume(self._gateway_id, part)
        adopted = await self._restore_owners() if emptied else 0
        if emptied:
            await self._restore_reservations()
        if resumed or adopted:
            log.warning(
                "restored leases and owners in Redis",
                action="state_resumed",
                leases=resumed,
                affinities=adopted,
            )

    async def _restore_reservations(self) -> None:
        held: dict[str, list[tuple[str, int]]] = {}
        for request_id, life in self._active.items():
            if life.quota is not None and life.may_use and life.left is not None:
                held.setdefault(life.quota.text, []).append((request_id, life.may_use))
        for quota, requests in held.items():
            for start in range(0, len(requests), AT_ONCE):
                # Requests may have ended during the calls before.
                part = [x for x in requests[start:][:AT_ONCE] if x[0] in self._active]
                if part:
                    await self._routing.reserve(self._gateway_id, quota, part)

    async def _restore_owners(self) -> int:
        adopted = 0
        for sessions, ids in self._offline.remembered(AT_ONCE):
            adopted += await self._routing.adopt(sessions, ids)
        return adopted

    async def _drop_unknown(self, place: Place) -> None:
        """Looks at the next pages of leases. The next heartbeat goes on from there."""
        dropped = 0
        for _ in range(PAGES_AT_ONCE):
            next_place, held = await self._routing.held(self._gateway_id, place)
            # Before any await: a request is active before it has a lease, so one that
            # is not has ended, and its lease is over or nobody's.
            unknown = [request for request in held if request not in self._active]
            if unknown:
                dropped += await self._routing.abandon(self._gateway_id, unknown)
            place = next_place
            self._unchecked = place or None
            if not place:
                break
        if dropped:
            log.info(
                "dropped leases without a request",
                action="leases_dropped",
                leases=dropped,
            )
