"""The routing state in memory with everything that the function library in Redis does:
the reference that it is compared with."""

from collections.abc import Iterable
from typing import Any

from libs.common.contracts.verdicts import Verdict
from libs.common.routing.circuit_breaker import PROBE, judge
from libs.common.routing.local_state import NEUTRAL, Field, LocalRouting
from libs.common.routing.types import Lease


class ReferenceRouting(LocalRouting):
    """Adds health checks and the leases of other gateways."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.gateways: dict[str, float] = {}  # Unix ms of the last heartbeat

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
