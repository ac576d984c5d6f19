"""Selects the resource of an attempt: with Redis, with SQL for ids that Redis does not
know, and with this gateway's own state while Redis is down."""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.aliases import MARK, AliasTarget
from libs.common.routing.functions import Owners, RoutingFunctions
from libs.common.routing.types import (
    NAMED,
    Ask,
    Decision,
    ForeignId,
    NoCapacity,
    NoResources,
    OwnerLimited,
    Refusal,
    UnknownIds,
    UnknownPool,
)
from services.gateway import errors
from services.gateway.errors import Problem
from services.gateway.ledger.ledger import Ledger
from services.gateway.routing.catalogue import GatewayCatalogue, Target
from services.gateway.routing.offline import OfflineRouting
from services.gateway.routing.owner_lookup import Found, OwnerLookup

ASK_AGAIN_S = 0.05


class Selector:
    """Selects the resource of an attempt, and finds its target."""

    def __init__(
        self,
        routing: RoutingFunctions,
        catalogue: GatewayCatalogue,
        offline: OfflineRouting,
        lookup: OwnerLookup,
        ledger: Ledger,
        beat_s: float,
    ) -> None:
        """`beat_s`: the interval of a gateway's heartbeats."""
        self._routing = routing
        self._catalogue = catalogue
        self._offline = offline
        self._lookup = lookup
        self._ledger = ledger
        # After Redis was emptied: 1 s until it has a catalogue, one heartbeat for each
        # gateway to notice, and one more to be sure.
        self._restored_within_s = 1 + 2 * beat_s

    @property
    def alias_targets(self) -> Mapping[str, AliasTarget]:
        """Model aliases."""
        return self._catalogue.alias_targets

    async def decide(self, ask: Ask, ids: Sequence[str]) -> Decision:
        """Selects a resource. `ids` are those whose digests `ask` carries. Raises a
        `Refusal`, or a `Problem` while there is no catalogue."""
        closed = self._catalogue.closed
        if closed:
            ask = msgspec.structs.replace(ask, tried=(*ask.tried, *closed))
        try:
            # The same as `_acquire`, without its coroutine.
            decision = await self._routing.acquire(ask)
            self._ledger.decided(ask.decision_id, decision.event)
            return decision
        except UnknownIds as unknown:
            emptied = self._is_young(unknown)
            return await self._look_up_and_decide(ask, ids, emptied=emptied)
        except Refusal as refusal:
            self._refused(ask, refusal)
            raise
        except NoCatalogue:
            return await self._decide_alone(ask, ids, emptied=True)
        except RedisAway:
            return await self._decide_alone(ask, ids, emptied=False)

    def known(self, decision: Decision) -> Target | None:
        """The target of a decision, if it was made with the catalogue read last."""
        if decision.version != self._catalogue.version:
            return None
        return self._catalogue.targets.get(decision.resource_id)

    async def _acquire(self, ask: Ask) -> Decision:
        try:
            decision = await self._routing.acquire(ask)
        except Refusal as refusal:
            self._refused(ask, refusal)
            raise
        self._ledger.decided(ask.decision_id, decision.event)
        return decision

    def _refused(self, ask: Ask, refusal: Refusal) -> None:
        if refusal.event:
            self._ledger.decided(ask.decision_id, refusal.event)

    async def find(self, decision: Decision) -> Target:
        """The target of a decision. Reads the catalogue again if necessary. Raises a
        `Problem` when the resource is gone."""
        try:
            target = await self._catalogue.find(decision.resource_id, decision.version)
        except (RedisAway, NoCatalogue):
            target = self._catalogue.targets.get(decision.resource_id)
        if target is None:
            raise errors.no_capacity(1000)
        return target

    async def _decide_alone(
        self, ask: Ask, ids: Sequence[str], *, emptied: bool
    ) -> Decision:
        """Selects while Redis is down. The router may still reach SQL."""
        if not self._catalogue.known:
            raise errors.not_ready()
        try:
            return self._choose_alone(ask)
        except UnknownIds:
            return await self._look_up_and_decide(ask, ids, emptied=emptied)

    async def _look_up_and_decide(
        self, ask: Ask, ids: Sequence[str], *, emptied: bool
    ) -> Decision:
        found = await self._lookup.find(ask, ids)
        if emptied and not _enough(ask, found):
            decision = await self._decide_when_restored(ask)
            if decision is not None:
                return decision
        try:
            return await self._decide_resolved(ask, found)
        except ForeignId as refused:
            raise _unless_unverified(refused, found) from None

    async def _decide_resolved(self, ask: Ask, found: Found) -> Decision:
        resolved = msgspec.structs.replace(ask, resolved=True)
        try:
            await self._routing.adopt(found.sessions, found.ids)
            return await self._acquire(resolved)
        except (RedisAway, NoCatalogue):
            self._offline.remember(found.sessions, found.ids)
            return self._choose_alone(resolved)

    async def check(self, ask: Ask, ids: Sequence[str]) -> None:
        """Checks the ids of a request that needs no new resource. Raises `ForeignId`,
        or a `Problem` when the check is not possible."""
        try:
            await self._check(ask)
            return
        except UnknownIds:
            found = await self._lookup.find(ask, ids)
        try:
            await self._routing.adopt(found.sessions, found.ids)
        except (RedisAway, NoCatalogue):
            self._offline.remember(found.sessions, found.ids)
        try:
            await self._check(msgspec.structs.replace(ask, resolved=True))
        except ForeignId as refused:
            raise _unless_unverified(refused, found) from None

    async def _check(self, ask: Ask) -> None:
        try:
            await self._routing.check(ask)
        except (RedisAway, NoCatalogue):
            self._offline.local.check_ids(ask)

    async def _decide_when_restored(self, ask: Ask) -> Decision | None:
        """Retries while the gateways restore owners in a Redis that was just emptied:
        each does so on its next heartbeat, and may know owners that are not in SQL
        yet. None when that time is over."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._restored_within_s
        while loop.time() < ends:
            await asyncio.sleep(ASK_AGAIN_S)
            try:
                return await self._acquire(ask)
            except UnknownIds as unknown:
                if not self._is_young(unknown):
                    return None
            except NoCatalogue:
                continue
            except RedisAway:
                return None
        return None

    def _is_young(self, unknown: UnknownIds) -> bool:
        return unknown.age_ms < self._restored_within_s * 1000

    def _choose_alone(self, ask: Ask) -> Decision:
        decision, event = self._offline.choose(ask)
        self._ledger.decided_alone(ask.decision_id, event)
        return decision


def _enough(ask: Ask, found: Found) -> bool:
    """Are the owners found enough? Ids that clients cannot invent must have one."""
    if ask.asker.kinds:
        return not _named_missing(ask, found.ids)
    return any(found.sessions.values()) or any(found.ids.values())


def _named_missing(ask: Ask, owners: Owners) -> bool:
    digests = (*ask.bound, *ask.asker.further)
    return any(
        kind == NAMED and owners.get(digest) is None
        for kind, digest in zip(ask.asker.kinds, digests, strict=True)
    )


def _unless_unverified(refused: ForeignId, found: Found) -> Exception:
    """The error to raise: an id is not called unknown while SQL cannot be queried."""
    if found.complete or refused.known:
        return refused
    return errors.ids_unverified()


def problem_of(refusal: Refusal, ask: Ask, method: str) -> Problem:
    """The error for a request that no resource may serve."""
    match refusal:
        case UnknownPool() if (ask.pool_id or "").startswith(MARK):
            # The provider lost its last resource after the alias was read.
            provider_id = (ask.pool_id or "").removeprefix(MARK)
            return errors.provider_gone(provider_id)
        case UnknownPool(pools=pools):
            return errors.unknown_pool(ask.pool_id or "", pools)
        case NoResources():
            return errors.no_resources()
        case NoCapacity(retry_after_ms=wait_ms):
            return errors.no_capacity(wait_ms)
        case OwnerLimited(retry_after_ms=wait_ms):
            return errors.owner_limited(wait_ms)
    return errors.owner_unavailable(method=method, encrypted=ask.account_bound)
