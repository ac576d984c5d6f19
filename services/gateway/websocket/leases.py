"""What sockets ask of routing besides a resource for each turn."""

from contextlib import suppress

from libs.common.contracts.catalogue import Resource
from libs.common.contracts.events import Reason
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Ask, ForeignId, Refusal, UnknownIds
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.routing.selector import Selector

UNSERVED = ("owner_limited", "owner_gone")
BUSY = "busy"
AFFINITY = (Reason.RESPONSE_AFFINITY, Reason.SESSION_AFFINITY)


class SocketLeases:
    """Checks ids, and gives back the leases of upgrades."""

    def __init__(self, routing: RoutingFunctions, selector: Selector) -> None:
        self._routing = routing
        self._selector = selector

    async def check(self, life: Lifecycle, ask: Ask) -> None:
        """May it name its ids? Asks Redis, SQL, or what this gateway knows. Raises a
        `Problem`."""
        try:
            await self._selector.check(ask, life.ids)
        except ForeignId as refused:
            raise life.foreign(refused) from None

    async def belong_elsewhere(self, ask: Ask, resource: Resource) -> bool:
        """Do the ids or the session of a first turn belong to another resource, which
        may be unable to serve, or may they, because only SQL can tell?"""
        try:
            explained = await self._routing.explain(ask, None)
        except UnknownIds:
            return True
        except (Refusal, RedisAway, NoCatalogue):
            return False
        if explained.status in UNSERVED:
            return True
        if explained.status == BUSY:
            return bool(ask.bound) or ask.account_bound
        return explained.reason in AFFINITY and explained.resource_id != resource.id

    async def release_upgrade(self, life: Lifecycle) -> None:
        """Give back the lease of an upgrade: an open socket without a turn holds none.
        If Redis is away, the next heartbeats find the lease."""
        record = life.record
        with suppress(RedisAway, NoCatalogue):
            await self._routing.abandon(record.gateway_id, [record.id])
