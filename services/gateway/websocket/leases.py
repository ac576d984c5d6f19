"""Leases of turns: each turn takes one on the resource that its socket leads to."""

import time
from contextlib import suppress

import msgspec
import uuid_utils

from libs.common.contracts.catalogue import Resource
from libs.common.contracts.events import Reason
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Ask, Decision, ForeignId, Refusal, UnknownIds
from services.gateway.ledger.ledger import Ledger
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.routing.selector import Selector

AFFINITY = (Reason.RESPONSE_AFFINITY, Reason.SESSION_AFFINITY)


class SocketLeases:
    """Takes leases where the resource is given."""

    def __init__(
        self, routing: RoutingFunctions, selector: Selector, ledger: Ledger
    ) -> None:
        self._routing = routing
        self._selector = selector
        self._ledger = ledger

    async def pin(self, life: Lifecycle, resource: Resource) -> None:
        """Take a lease on the socket's resource. Raises `OwnerGone` or a `Problem`."""
        record = life.record
        # The first turn has the decision of the upgrade.
        decided = record.resource_id == resource.id
        attempt = record.attempts + (0 if decided else 1)
        ask = life.ask(attempt, str(uuid_utils.uuid7()), 0)
        life.unpinned()
        ledger = self._ledger
        try:
            found = await self._pinned(ask, life, resource, decided=decided)
            if not decided:
                ledger.decided(ask.decision_id, found.event)
        except ForeignId as refused:
            raise life.foreign(refused) from None
        except (RedisAway, NoCatalogue):
            await self.check(life, ask)
            found = Decision(resource.id, Reason.SOCKET, "", degraded=True)
            if not decided:
                event = _decided_alone(ask, resource.id)
                ledger.decided_alone(ask.decision_id, event)
        life.acquired(found, resource.account_id, attempt)

    async def _pinned(
        self, ask: Ask, life: Lifecycle, resource: Resource, *, decided: bool
    ) -> Decision:
        routing = self._routing
        try:
            return await routing.pin(ask, resource.id, decided=decided)
        except UnknownIds:
            await self.check(life, ask)
            ask = msgspec.structs.replace(ask, resolved=True)
            return await routing.pin(ask, resource.id, decided=decided)

    async def check(self, life: Lifecycle, ask: Ask) -> None:
        """May it name its ids? Asks Redis, SQL, or what this gateway knows. Raises a
        `Problem`."""
        try:
            await self._selector.check(ask, life.ids)
        except ForeignId as refused:
            raise life.foreign(refused) from None

    async def belong_elsewhere(self, ask: Ask, resource: Resource) -> bool:
        """Do the ids or the session of a first turn belong to another resource, or may
        they, because only SQL can tell?"""
        try:
            explained = await self._routing.explain(ask, None)
        except UnknownIds:
            return True
        except (Refusal, RedisAway, NoCatalogue):
            return False
        return explained.reason in AFFINITY and explained.resource_id != resource.id

    async def release_upgrade(self, life: Lifecycle) -> None:
        """Give back the lease of an upgrade: an open socket without a turn holds none.
        If Redis is away, the next heartbeats find the lease."""
        record = life.record
        with suppress(RedisAway, NoCatalogue):
            await self._routing.abandon(record.gateway_id, [record.id])


def _decided_alone(ask: Ask, resource_id: str) -> bytes:
    return msgspec.json.encode(
        {
            "request_id": ask.request_id,
            "attempt": ask.attempt,
            "created_at_ms": int(time.time() * 1000),
            "session_id": ask.session_id,
            "pool_id": ask.pool_id,
            "resource_id": resource_id,
            "reason": Reason.SOCKET,
            "candidates": [],
            "degraded": True,
            "cause": ask.cause or None,
        }
    )
