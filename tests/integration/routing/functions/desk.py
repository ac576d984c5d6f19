"""The routing functions as one gateway calls them."""

import json
from dataclasses import dataclass, field
from typing import Any

from libs.common.contracts.catalogue import Catalogue, HealthState, Resource
from libs.common.redis.shared_connection import SharedConnection
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import Ask, Decision, Release, digest
from libs.common.upstream_answers.verdicts import Verdict
from services.router.function_library import LIBRARY

STREAM = "telemetry:events"
OK = Verdict(kind="ok", latency_ms=1.5)
FAULT = Verdict(kind="fault", cause="500")
LIMITED = Verdict(kind="limited", cause="429 rate limited", cooldown_ms=5_000)
REFUSED = Verdict(kind="refused", cause="401 invalid_api_key")
NEUTRAL = Verdict(kind="neutral")


def resource(number: int, account: str = "", weight: float = 1, pool: str = "p"):  # type: ignore[no-untyped-def]
    return Resource(
        id=f"openai-{number}",
        name=f"openai-{number}",
        pool_id=pool,
        account_id=account or f"account-{number}",
        weight=weight,
        base_url="http://127.0.0.1:1/v1",
        credential=f"env:OPENAI_API_KEY_{number}",
    )


@dataclass
class Desk:
    """Acquires and releases as a gateway does, with its own clock."""

    redis: Any
    shared: SharedConnection
    now: int = 1_760_000_000_000
    asked: int = 0
    draw: int = 0
    decisions: dict[str, Decision] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.routing = RoutingFunctions(
            self.shared, STREAM, Terms(cooldown_ms=1_000), LIBRARY, lambda: self.now
        )

    async def publish(self, *resources: Resource, version: str = "v1") -> bool:
        return await self.routing.publish(
            Catalogue(version=version, resources=resources), "event"
        )

    async def acquire(self, request: str = "", **over: Any) -> Decision:
        self.asked += 1
        request = request or f"r{self.asked}"
        before = self.decisions.get(request)
        ask: dict[str, Any] = {
            "request_id": request,
            "decision_id": f"d{self.asked}",
            "attempt": 1,
            "gateway_id": "gw",
            "pool_id": None,
            "session_id": None,
            "model": "",
            "bound": (),
            "account_bound": False,
            "tried": (),
            "previous": before.resource_id if before else "",
            "resolved": True,
            "lease": b'{"id":"%b","model":"m"' % request.encode(),
            "draw": self.draw,
        } | over
        session = ask["session_id"]
        ask["session"] = digest(session) if session else ""
        decision = await self.routing.acquire(Ask(**ask))
        self.decisions[request] = decision
        return decision

    async def release(
        self, request: str, verdict: Verdict = OK, *, over: bool = True, **more: Any
    ) -> Any:
        given = {"learned": (), "gateway_id": "gw", "model": None} | more
        session = given.pop("session_id", None)
        given["session"] = digest(session) if session else ""
        return await self.routing.release(
            Release(
                request_id=request,
                resource_id=self.decisions[request].resource_id,
                verdict=verdict,
                event=b'{"id":"x"}' if over else None,
                **given,
            )
        )

    async def serve(self, verdict: Verdict = OK, **over: Any) -> str:
        """One request from acquire to release; returns its resource."""
        decision = await self.acquire(**over)
        await self.release(f"r{self.asked}", verdict)
        return decision.resource_id

    async def in_flight(self) -> dict[str, int]:
        return {s.id: s.in_flight for s in await self.routing.states()}

    async def health(self, resource_id: str) -> HealthState:
        states = {s.id: s.health for s in await self.routing.states()}
        return states[resource_id]

    async def events(self, kind: str) -> list[dict[str, Any]]:
        entries = await self.redis.xrange(STREAM)
        return [
            json.loads(fields[b"data"])
            for _, fields in entries
            if fields[b"kind"] == kind.encode()
        ]
