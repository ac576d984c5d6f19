"""Selects the resource of an attempt: with Redis, with SQL for ids that Redis does not
know, and with this gateway's own state while Redis is down."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.aliases import MARK
from libs.common.routing.functions import Owners
from libs.common.routing.hot_calls import HotCalls
from libs.common.routing.types import (
    DECIDED,
    NAMED,
    Ask,
    Busy,
    Decision,
    ForeignId,
    Kept,
    LimitsUnknown,
    NoCapacity,
    NoResources,
    OwnerLimited,
    Refusal,
    SpendUnknown,
    UnknownIds,
    UnknownPool,
)
from services.gateway import errors
from services.gateway.errors import Problem
from services.gateway.ledger.ledger import Ledger
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.routing.offline import OfflineRouting
from services.gateway.routing.owner_lookup import Found, OwnerLookup
from services.gateway.routing.target import Target

ASK_AGAIN_S = 0.05
# Longer than a router needs to notice, and gateways to restore reservations.
SUMMED_WITHIN_S = 6.0
# What `Selector.asked` raises that `otherwise` has to handle.
FAILURES: Final = (Refusal, NoCatalogue, RedisAway)


class Routing(HotCalls, Protocol):
    """The routing functions that it calls."""

    def check(self, ask: Ask) -> Awaitable[None]: ...

    def adopt(self, sessions: Owners, ids: Owners) -> Awaitable[int]: ...

    def kept(
        self, sessions: Iterable[str], ids: Iterable[str]
    ) -> Awaitable[list[Kept]]: ...


class Selector:
    """Selects the resource of an attempt, and finds its target."""

    def __init__(
        self,
        routing: Routing,
        catalogue: GatewayCatalogue,
        offline: OfflineRouting,
        lookup: OwnerLookup,
        ledger: Ledger,
        beat_s: float,
    ) -> None:
        """`beat_s`: the interval of a gateway's heartbeats."""
        self._routing = routing
        self._hot: HotCalls = routing
        self.catalogue = catalogue
        self._offline = offline
        self._lookup = lookup
        self._ledger = ledger
        # After Redis was emptied: 1 s until it has a catalogue, one heartbeat for each
        # gateway to notice, and twice that for busy machines.
        self._restored_within_s = 3 * (1 + beat_s)

    def asked(self, ask: Ask) -> Awaitable[Decision]:
        """Asks Redis for a resource. Then call `taken`, or `otherwise` if this failed.
        No coroutine: each one costs at each await."""
        if self.catalogue.closed:
            ask = self._open(ask)
        return self._hot.acquire(ask)

    async def otherwise(
        self, ask: Ask, ids: Sequence[str], failure: Exception | None
    ) -> Decision:
        """Selects a resource when `asked` failed. Raises as `decide` does."""
        ask = self._open(ask)
        match failure:
            case LimitsUnknown():
                return await self.decide(_telling(ask), ids)
            case UnknownIds():
                emptied = self._is_young(failure)
                return await self._look_up_and_decide(ask, ids, emptied=emptied)
            case SpendUnknown():
                return await self._decide_when_summed(ask, ids, failure)
            case NoCatalogue():
                return await self._decide_alone(ask, ids, emptied=True)
            case RedisAway():
                return await self._decide_alone(ask, ids, emptied=False)
            case Refusal():
                self._refused(ask, failure)
        assert failure is not None
        try:
            raise failure
        finally:
            failure = None  # it refers to this frame: a cycle

    async def decide(self, ask: Ask, ids: Sequence[str]) -> Decision:
        """Selects a resource. `ids` are those whose digests `ask` carries. Raises a
        `Refusal`, or a `Problem` while there is no catalogue."""
        failure: Exception | None = None
        try:
            decision = await self.asked(ask)
        except FAILURES as failed:
            failure = failed  # handled below: compiled code cannot wait in a handler
        if failure is not None:
            try:
                return await self.otherwise(ask, ids, failure)
            finally:
                failure = None  # it refers to this frame: a cycle
        if decision.event:
            self._ledger.decided(ask.decision_id, decision.event)
        return decision

    def taken(self, ask: Ask, decision: Decision) -> Target | None:
        """Journals the event of a decision of `asked`. Returns what `known` does."""
        if decision.event:
            self._ledger.decided(ask.decision_id, decision.event)
        if decision.version != self.catalogue.version:
            return None
        return self.catalogue.targets.get(decision.resource_id)

    def _open(self, ask: Ask) -> Ask:
        """An ask that leaves out resources whose keys this gateway cannot get."""
        closed = self.catalogue.closed
        if not closed:
            return ask
        return replace(ask, tried=(*ask.tried, *closed))

    async def _decide_when_summed(
        self, ask: Ask, ids: Sequence[str], unknown: SpendUnknown
    ) -> Decision:
        """Redis does not know what was spent: waits until the router summed it. After
        that, what this gateway knows decides; a budget that reserves stays closed."""
        assert ask.quota is not None
        loop = asyncio.get_running_loop()
        ends = loop.time() + SUMMED_WITHIN_S
        away = False
        while not away and loop.time() < ends:
            await asyncio.sleep(ASK_AGAIN_S)
            try:
                return await self._acquire(ask)
            except SpendUnknown:
                continue
            except UnknownIds:
                break
            except (RedisAway, NoCatalogue):
                away = True
        if away:
            return await self._decide_alone(ask, ids, emptied=False)
        if not ask.may_use.startswith("-"):
            self._offline.spend.check(ask.quota)
            ask = replace(ask, may_use=f"-{ask.may_use}")
            return await self.decide(ask, ids)
        raise unknown

    def known(self, decision: Decision) -> Target | None:
        """The target of a decision, if it was made with the catalogue read last."""
        if decision.version != self.catalogue.version:
            return None
        return self.catalogue.targets.get(decision.resource_id)

    async def _acquire(self, ask: Ask) -> Decision:
        """Raises what `acquire` does, but for `LimitsUnknown`."""
        try:
            # Not asked by their id: what is asked here is rare.
            decision = await self._routing.acquire(_telling(ask))
        except Refusal as refusal:
            self._refused(ask, refusal)
            raise
        if decision.event:
            self._ledger.decided(ask.decision_id, decision.event)
        return decision

    def _refused(self, ask: Ask, refusal: Refusal) -> None:
        if refusal.event:
            self._ledger.decided(ask.decision_id, refusal.event)

    async def find(self, decision: Decision) -> Target:
        """The target of a decision. Reads the catalogue again if necessary. Raises a
        `Problem` when the resource is gone."""
        try:
            target = await self.catalogue.find(decision.resource_id, decision.version)
        except (RedisAway, NoCatalogue):
            target = self.catalogue.targets.get(decision.resource_id)
        if target is None:
            raise errors.no_capacity(1000)
        return target

    async def _decide_alone(
        self, ask: Ask, ids: Sequence[str], *, emptied: bool
    ) -> Decision:
        """Selects while Redis is down. The router may still reach SQL."""
        if not self.catalogue.known:
            raise errors.not_ready()
        with suppress(UnknownIds):
            return self._choose_alone(ask)
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
        resolved = replace(ask, resolved=True)
        try:
            await self._routing.adopt(found.sessions, found.ids)
            return await self._acquire(resolved)
        except (RedisAway, NoCatalogue):
            self._offline.remember(found.sessions, found.ids)
            return self._choose_alone(resolved)

    async def kept(self, sessions: Sequence[str], ids: Sequence[str]) -> list[Kept]:
        """The owners of sessions and then of ids (digests), as far as Redis knows
        them, or this gateway while Redis is down."""
        try:
            return await self._routing.kept(sessions, ids)
        except (RedisAway, NoCatalogue):
            local = self._offline.local
            found = [local.sessions.get(digest) for digest in sessions]
            found += [local.ids.get(digest) for digest in ids]
            return [Kept(owner) for owner in found]

    async def check(self, ask: Ask, ids: Sequence[str]) -> None:
        """Checks the ids of a request that needs no new resource. Raises `ForeignId`,
        or a `Problem` when the check is not possible."""
        with suppress(UnknownIds):
            await self._check(ask)
            return
        found = await self._lookup.find(ask, ids)
        try:
            await self._routing.adopt(found.sessions, found.ids)
        except (RedisAway, NoCatalogue):
            self._offline.remember(found.sessions, found.ids)
        try:
            await self._check(replace(ask, resolved=True))
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
        if not _has_decision(ask, decision):
            self._ledger.decided_alone(ask.decision_id, event)
        return decision


def _has_decision(ask: Ask, decision: Decision) -> bool:
    """Is the decision of its socket's upgrade that of the request?"""
    return DECIDED in ask.turn and decision.resource_id == ask.socket


def _telling(ask: Ask) -> Ask:
    """The same ask, with the limits of its key in full."""
    return ask if ask.quota is None else replace(ask, tells=True)


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
        case Busy(retry_after_ms=wait_ms) | OwnerLimited(retry_after_ms=wait_ms):
            busy = isinstance(refusal, Busy)
            limited = errors.at_capacity if busy else errors.owner_limited
            return limited(wait_ms)
    # A client that continues a response recovers with the whole input.
    encrypted = ask.account_bound and not ask.chained
    return errors.owner_unavailable(method=method, encrypted=encrypted)
