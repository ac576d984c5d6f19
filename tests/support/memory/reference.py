"""The routing state in memory with everything that the function library in Redis does:
the reference that it is compared with."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from libs.common.routing.aliases import MARK, in_pool
from libs.common.routing.circuit_breaker import PROBE, Cooldown, judge
from libs.common.routing.control import Terms
from libs.common.routing.local_state import NEUTRAL, Field, LocalRouting
from libs.common.routing.policy import Choice, Question
from libs.common.routing.types import Ask, Busy, ForeignId, Lease, Owner, Queued
from libs.common.upstream_answers.verdicts import Verdict
from tests.support.memory.queues import AGAIN_MS, Queues

PARKED = "-waiting"  # holds the leases of requests that wait


class ReferenceRouting(LocalRouting):
    """Adds health checks, the leases of other gateways, limits of requests in flight
    and queues."""

    def __init__(self, *args: Any, terms: Terms | None = None, **named: Any) -> None:
        super().__init__(*args, **named)
        self.gateways: dict[str, float] = {}  # Unix ms of the last heartbeat
        self.terms = terms or Terms()
        self.queues = Queues(self.free)
        self._account: str | None = None  # that the last request is bound to

    # Queues ------------------------------------------------------------------

    def choose(self, ask: Ask, now: float) -> Choice:
        """A request for which there is room may have to wait behind others."""
        self._account = None
        entry = ask.place.entry(ask) if ask.place else ""
        try:
            choice = super().choose(ask, now)
        except ForeignId:
            if ask.place:
                self._leave(ask, entry, now, served=False)
            raise
        waits_for = self._class_of(ask)
        left_ms = ask.place.left_ms if ask.place else self.terms.queue_ms
        field = ask.gateway_id, ask.request_id
        stays = field in self.leases.get(choice.resource_id or "", ())
        free = choice.resource_id and choice.how == "free" and not stays
        if free and left_ms and not self.queues.in_turn(waits_for, entry, now):
            choice = Choice(None, "busy")
        if choice.reason == "busy" and left_ms:
            choice = self._wait(ask, waits_for, entry, choice, now)
        if choice.reason == "busy" and choice.until_ms is None:
            choice = replace(choice, until_ms=now + self.queues.wait_of(waits_for))
        if ask.place:
            self._leave(ask, entry, now, served=choice.resource_id is not None)
        return choice

    def _leave(self, ask: Ask, entry: str, now: float, *, served: bool) -> None:
        self.queues.leave(entry, now, served=served)
        self._unpark((ask.gateway_id, ask.request_id))

    def _wait(
        self, ask: Ask, waits_for: str, entry: str, choice: Choice, now: float
    ) -> Choice:
        due = choice.until_ms
        if ask.place is None:
            raise Busy(int(max((due or now) - now, 0)))
        room = self.free(waits_for) > 0
        if due is None and room and self.queues.in_turn(waits_for, entry, now):
            due = now + AGAIN_MS
        if not self.queues.join(waits_for, ask, now, due):
            return choice
        field = ask.gateway_id, ask.request_id
        self.leases.get(ask.previous, set()).discard(field)
        self.leases.setdefault(PARKED, set()).add(field)
        raise Queued(waits_for)

    def _unpark(self, field: Field) -> None:
        self.leases.get(PARKED, set()).discard(field)

    def _class_of(self, ask: Ask) -> str:
        if self._account is not None:
            return f"account:{self._account}"
        return "pool:" + self._ranked_as(ask.pool_id or "*")

    def _ranked_as(self, pool: str) -> str:
        """Pools with the same resources share the ranking of the first of them."""
        members = self._members(pool)
        return min(n for n in self._pools() if self._members(n) == members)

    def _pools(self) -> set[str]:
        resources = self.resources.values()
        pools = {r.pool_id for r in resources if r.pool_id}
        return (
            {"*"} | pools | {MARK + r.provider_id for r in resources if r.provider_id}
        )

    def _members(self, pool: str) -> list[str]:
        within = self.resources.values()
        return [r.id for r in within if pool == "*" or in_pool(r, pool)]

    def free(self, waits_for: str) -> float:
        """How many more requests the resources of a class may have in flight."""
        most = self.terms.most_in_flight
        kind, _, name = waits_for.partition(":")
        if kind == "pool" and self._members(name) and self._ranked_as(name) != name:
            return math.inf  # requests of an older catalogue wait there: each finds out
        mine = [
            s
            for s in self.standings()
            if (
                s.account_id == name
                if kind == "account"
                else s.resource_id in set(self._members(name))
            )
        ]
        if most is None or not mine:
            return math.inf
        return sum(max(most - s.in_flight, 0) for s in mine if not s.ready_ms)

    def _by_account(self, owner: Owner, ask: Ask, question: Question) -> Choice:
        self._account = self._account_of(owner)
        return super()._by_account(owner, ask, question)

    def _question(
        self, ask: Ask, cooldowns: Mapping[str, Cooldown] | None, now: float
    ) -> Question:
        terms, place = self.terms, ask.place
        field = ask.gateway_id, ask.request_id
        bound_ms = terms.bound_queue_ms
        return replace(
            super()._question(ask, cooldowns, now),
            most_in_flight=terms.most_in_flight,
            held=ask.previous if field in self.leases.get(ask.previous, ()) else "",
            wait_ms=place.left_ms if place else terms.queue_ms,
            bound_ms=place.left_ms if place and bound_ms else bound_ms,
        )

    # Health and gateways -----------------------------------------------------

    def verdict(self, resource_id: str, verdict: Verdict, now: float) -> None:
        """Apply the verdict of a health check."""
        if resource_id in self.resources:
            cooldown_ms = self.cooldown_of(verdict)
            judge(self.health[resource_id], verdict, cooldown_ms, PROBE, now)

    def heartbeat(self, gateway_id: str, now: float) -> bool:
        """Returns whether the gateway was known."""
        known = gateway_id in self.gateways
        self.gateways[gateway_id] = now
        return known

    def resume(self, gateway_id: str, leases: Iterable[Lease]) -> None:
        for lease in leases:
            if lease.resource_id in self.resources:
                self.leases[lease.resource_id].add((gateway_id, lease.request_id))

    def reap(self, silent_ms: float, now: float, *, strays: bool = False) -> list[str]:
        """End the leases of silent gateways; returns their requests."""
        silent = {g for g, beat in self.gateways.items() if beat <= now - silent_ms}
        ended = []
        for resource_id, held in self.leases.items():
            for gateway, request in sorted(held):
                if gateway in silent:
                    self._end(resource_id, (gateway, request), now)
                    ended.append(request)
                elif strays:
                    self.gateways.setdefault(gateway, now)
        for gateway in silent:
            del self.gateways[gateway]
        return ended

    def in_flight(self) -> dict[str, int]:
        return {id_: len(self.leases[id_]) for id_ in self.resources}

    def _end(self, resource_id: str, field: Field, now: float) -> None:
        """If the request was a trial, the next one is."""
        self.leases[resource_id].discard(field)
        if resource_id in self.resources:
            judge(self.health[resource_id], NEUTRAL, 0, field[1], now)
