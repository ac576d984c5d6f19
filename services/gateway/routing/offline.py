"""Routing while Redis is down, from the last catalogue, this gateway's own load, the
owners of sessions and ids that it knows, and the failures it has seen. Its decisions
are marked `degraded`."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import msgspec

from libs.common.routing.accounts import keep_owner
from libs.common.routing.budgets import Quota
from libs.common.routing.functions import Owners
from libs.common.routing.local_state import LocalRouting
from libs.common.routing.policy import Choice, Standing
from libs.common.routing.types import Ask, Decision, Owner, Release
from libs.common.upstream_answers.verdicts import Verdict
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.routing.spend import SpendMemory


class OfflineRouting:
    """Selects a resource from the state of this process."""

    def __init__(
        self,
        catalogue: GatewayCatalogue,
        cooldown_ms: int = 30_000,
        *,
        limit_aware: bool = True,
        quotas: Iterable[Quota] = (),
    ) -> None:
        """`quotas`: the limits of keys that asked here."""
        self.catalogue = catalogue
        self._version: str | None = None
        self.local = local = LocalRouting(cooldown_ms, limit_aware=limit_aware)
        # Of `local`, whose class is interpreted: each look-up of a name takes time.
        self._leases, self._most_owners = local.leases, local.most_owners
        self._sessions, self._ids = local.sessions, local.ids
        self.spend = SpendMemory(quotas)

    def began(self, gateway_id: str, request_id: str, resource_id: str) -> None:
        """Counts an attempt, whether Redis or this gateway routed it."""
        held = self._leases.get(resource_id)
        if held is None:
            held = self._leases[resource_id] = set()
        held.add((gateway_id, request_id))

    def ended(self, gateway_id: str, request_id: str, resource_id: str) -> None:
        self._leases[resource_id].discard((gateway_id, request_id))

    def remember(self, sessions: Owners, ids: Owners) -> None:
        """Stores owners of sessions and ids for when Redis is down or empty."""
        self.local.remember(sessions, ids)

    def remember_success(
        self,
        session: str,
        learned: tuple[str, ...],
        resource_id: str,
        account_id: str,
        tenant: str = "",
    ) -> None:
        """Stores owners learned from an answer, which replace older ones. Like
        `OwnerMemory.keep`, which is interpreted: each call took 2,900 instructions."""
        owner, most = Owner(resource_id, account_id, tenant), self._most_owners
        if session:
            keep_owner(self._sessions, session, owner, most, stays=False)
        for digest in learned:
            keep_owner(self._ids, digest, owner, most, stays=True)

    def remembered(self, at_once: int) -> Iterator[tuple[Owners, Owners]]:
        """All stored owners of sessions and ids, `at_once` of each at a time. Changes
        during the iteration do not affect it."""
        sessions, ids = list(self.local.sessions.items()), list(self.local.ids.items())
        for start in range(0, max(len(sessions), len(ids)), at_once):
            part = slice(start, start + at_once)
            yield _known(sessions[part]), _known(ids[part])

    def choose(self, ask: Ask) -> tuple[Decision, bytes]:
        """A decision and the JSON of its event. Raises a `Refusal`."""
        if ask.quota is not None:
            self.spend.check(ask.quota)
        if self._version != self.catalogue.version:
            self._version = self.catalogue.version
            targets = self.catalogue.targets.values()
            self.local.publish(target.resource for target in targets)
        now = int(time.time() * 1000)
        standings = self.local.standings()
        choice = self.local.acquire(ask, now)
        # The attempt counts from `began` on; until then nothing ensures `ended`.
        self.ended(ask.gateway_id, ask.request_id, choice.resource_id or "")
        decision = Decision(
            resource_id=choice.resource_id or "",
            reason=choice.reason,
            version=self._version or "",
            degraded=True,
            trial=choice.how == "trial",
        )
        return decision, _event(ask, choice, standings, now)

    def judged(self, release: Release) -> None:
        """Applies the verdict of an attempt that was routed here. A refused key only
        gets a cooldown, because no health check would report its recovery."""
        verdict = release.verdict
        if verdict and verdict.kind in ("refused", "exhausted"):
            cooldown = Verdict(kind="limited", cause=verdict.cause)
            release = replace(release, verdict=cooldown, model=None)
        self.local.release(release, time.time() * 1000)

    def redis_is_back(self) -> None:
        """Drops the health seen without Redis, which would be outdated next time."""
        self.local.forget_health()


def _known(owners: list[tuple[str, Owner | None]]) -> Owners:
    return {name: owner for name, owner in owners if owner is not None}


def _event(ask: Ask, choice: Choice, standings: list[Standing], now: int) -> bytes:
    return msgspec.json.encode(
        {
            "request_id": ask.request_id,
            "attempt": ask.attempt,
            "created_at_ms": now,
            "session_id": ask.session_id,
            "pool_id": ask.pool_id,
            "resource_id": choice.resource_id,
            "reason": choice.reason,
            "candidates": [_candidate(s, ask) for s in standings],
            "degraded": True,
            "cause": ask.cause or choice.cause,
        }
    )


def _candidate(standing: Standing, ask: Ask) -> dict[str, object]:
    refused = "already tried" if standing.resource_id in ask.tried else None
    if standing.ready_ms:
        refused = f"cooling down until {standing.ready_ms:.0f}"
    return {
        "resource": standing.resource_id,
        "score": None if standing.ready_ms else standing.rank,
        "in_flight": standing.in_flight,
        "weight": standing.weight,
        "health": "unknown",  # only Redis knows it
        "refused": refused,
    }
