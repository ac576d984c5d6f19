"""Routing while Redis is away: the last catalogue, this gateway's own load and
what it remembers of sessions. Visibly degraded, never refusing what can be
served."""

import random
import time
from collections import OrderedDict

import msgspec

from libs.common.policy import Option, least_loaded
from libs.common.routing import Ask, Decision, NoCapacity, NoResources, UnknownPool
from services.gateway.directory import Directory, Target

MOST_REMEMBERED = 50_000


class Fallback:
    """Chooses among the directory's targets by what this process knows."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._in_flight: dict[str, int] = {}
        self._owners: OrderedDict[str, str] = OrderedDict()

    def began(self, resource_id: str) -> None:
        """Count a request of this gateway, whoever routed it."""
        self._in_flight[resource_id] = self._in_flight.get(resource_id, 0) + 1

    def ended(self, resource_id: str) -> None:
        self._in_flight[resource_id] -= 1

    def remember(self, digests: tuple[str, ...], resource_id: str) -> None:
        """Keep who owns sessions and ids, for the time Redis is away."""
        for key in digests:
            self._owners[key] = resource_id
            self._owners.move_to_end(key)
        while len(self._owners) > MOST_REMEMBERED:
            self._owners.popitem(last=False)

    def choose(self, ask: Ask, session: str | None) -> tuple[Decision, bytes]:
        """A decision, and its event's JSON. Raises `UnknownPool`, `NoResources`
        or `NoCapacity`."""
        options, reason = self._options(ask, session)
        chosen = None
        if reason != "weighted_least_connections":
            keys = ask.bound if reason == "response_affinity" else (session or "",)
            chosen = self._owner(keys, options)
        if chosen is None:
            chosen = least_loaded(options, random.randrange)
        if chosen is None:
            raise NoCapacity(1000)
        version = self._directory.version or ""
        decision = Decision(chosen.resource_id, reason, version, degraded=True)
        return decision, _event(ask, decision, options)

    def _options(self, ask: Ask, session: str | None) -> tuple[list[Option], str]:
        """Who may serve, and why they. State of an account goes to that account
        only, as when Redis is there."""
        targets = self._eligible(ask)
        bound = self._account_of(ask.bound)
        reason = "response_affinity"
        if bound is None and session is not None:
            reason = "session_affinity"
            bound = self._account_of((session,)) if ask.account_bound else None
            if bound is None and session not in self._owners:
                reason = "weighted_least_connections"
        elif bound is None:
            reason = "weighted_least_connections"
        if bound is not None:
            everyone = self._directory.targets.values()
            targets = [t for t in everyone if t.resource.account_id == bound]
        return [self._option(target, ask.tried) for target in targets], reason

    def _account_of(self, digests: tuple[str, ...]) -> str | None:
        for key in digests:
            target = self._directory.targets.get(self._owners.get(key, ""))
            if target is not None:
                return target.resource.account_id
        return None

    def _eligible(self, ask: Ask) -> list[Target]:
        targets = list(self._directory.targets.values())
        if not targets:
            raise NoResources
        if ask.pool_id is None:
            return targets
        pooled = [t for t in targets if t.resource.pool_id == ask.pool_id]
        if not pooled:
            pools = {t.resource.pool_id for t in targets if t.resource.pool_id}
            raise UnknownPool(tuple(sorted(pools)))
        return pooled

    def _option(self, target: Target, tried: tuple[str, ...]) -> Option:
        resource = target.resource
        return Option(
            resource_id=resource.id,
            weight=resource.weight,
            in_flight=self._in_flight.get(resource.id, 0),
            available=resource.id not in tried,
        )

    def _owner(self, digests: tuple[str, ...], options: list[Option]) -> Option | None:
        for key in digests:
            owner = self._owners.get(key)
            for option in options:
                if option.resource_id == owner and option.available:
                    return option
        return None


def _event(ask: Ask, decision: Decision, options: list[Option]) -> bytes:
    candidates = [
        {
            "resource": option.resource_id,
            "score": option.load,
            "in_flight": option.in_flight,
            "weight": option.weight,
            "refused": None if option.available else "already tried",
        }
        for option in options
    ]
    return msgspec.json.encode(
        {
            "request_id": ask.request_id,
            "attempt": ask.attempt,
            "created_at_ms": int(time.time() * 1000),
            "session_id": ask.session_id,
            "pool_id": ask.pool_id,
            "resource_id": decision.resource_id,
            "reason": decision.reason,
            "candidates": candidates,
            "degraded": True,
        }
    )
