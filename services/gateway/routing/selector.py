"""Which resource an attempt goes to: asked of Redis, of what SQL knows about ids
that Redis does not, and while Redis is away of this gateway's own knowledge."""

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
    """Finds the target of an attempt."""

    def __init__(
        self,
        routing: RoutingFunctions,
        catalogue: GatewayCatalogue,
        offline: OfflineRouting,
        search: OwnerLookup,
        ledger: Ledger,
        beat_s: float,
    ) -> None:
        """`beat_s`: between two heartbeats of a gateway."""
        self._routing = routing
        self._catalogue = catalogue
        self._offline = offline
        self._search = search
        self._ledger = ledger
        # Until the catalogue is back, a beat to notice, and one to be sure.
        self._told_within_s = 1 + 2 * beat_s

    @property
    def alias_targets(self) -> Mapping[str, AliasTarget]:
        """Model aliases."""
        return self._catalogue.alias_targets

    async def decide(self, ask: Ask, ids: Sequence[str]) -> Decision:
        """`ids` are those whose digests `ask` carries. Raises a `Refusal`, or
        a `Problem` while there is nothing to choose from."""
        closed = self._catalogue.closed
        if closed:
            ask = msgspec.structs.replace(ask, tried=(*ask.tried, *closed))
        try:
            # As `_acquire` does, with a coroutine less.
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
        """The target of a decision, if it was made from the catalogue we have."""
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
        """The target of a decision."""
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
        """Redis is away; the router may still reach SQL."""
        if not self._catalogue.known:
            raise errors.not_ready()
        try:
            return self._choose_alone(ask)
        except UnknownIds:
            return await self._look_up_and_decide(ask, ids, emptied=emptied)

    async def _look_up_and_decide(
        self, ask: Ask, ids: Sequence[str], *, emptied: bool
    ) -> Decision:
        found = await self._search.find(ask, ids)
        if emptied and not _enough(ask, found):
            decision = await self._decide_when_told(ask)
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
        """May a request that is not routed anew name its ids? Raises `ForeignId`, or a
        `Problem` when that cannot be told."""
        try:
            await self._check(ask)
            return
        except UnknownIds:
            found = await self._search.find(ask, ids)
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

    async def _decide_when_told(self, ask: Ask) -> Decision | None:
        """Redis was emptied a moment ago, and another gateway may know what it lost
        before SQL heard of it: each gives back what it remembers on its next beat.
        None when that time is over."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._told_within_s
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
        return unknown.age_ms < self._told_within_s * 1000

    def _choose_alone(self, ask: Ask) -> Decision:
        decision, event = self._offline.choose(ask)
        self._ledger.decided_alone(ask.decision_id, event)
        return decision


def _enough(ask: Ask, found: Found) -> bool:
    """Need nobody else be asked? Ids that clients do not invent must be somebody's."""
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
    """An id is not said to be unknown while SQL cannot be asked."""
    if found.complete or refused.known:
        return refused
    return errors.ids_unverified()


def problem_of(refusal: Refusal, ask: Ask, method: str) -> Problem:
    """What the client is told when no resource may serve its request."""
    match refusal:
        case UnknownPool() if (ask.pool_id or "").startswith(MARK):
            # A moment ago it had resources.
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
