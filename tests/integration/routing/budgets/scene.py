"""One key with budgets and limits, and the functions that count them."""

import json
from dataclasses import replace
from typing import Any

from libs.common.budgets import Budget
from libs.common.contracts.catalogue import Catalogue
from libs.common.redis.client import ClientCaller
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.routing.budgets import Quota, Sum, quota_at
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import (
    BudgetReserved,
    BudgetSpent,
    Decision,
    LimitsUnknown,
    QuotaRefused,
    SpendUnknown,
)
from libs.common.upstream_answers.verdicts import Verdict
from services.router.function_library import library
from tests.support.memory.twin import resource
from tests.support.values.asks import made_ask, made_release

T0 = 1_800_000_000_000
DAY = 86_400_000
STREAM = "telemetry:events"
KEY, TEAM = "key:k", "team:t"
REFUSALS: dict[type[QuotaRefused], str] = {
    BudgetSpent: "budget_spent",
    BudgetReserved: "budget_reserved",
    SpendUnknown: "spend_unknown",
}


class Scene:
    """One key, with a clock of its own."""

    def __init__(
        self, redis: Any, keys: Keys = DEFAULT, terms: Terms | None = None
    ) -> None:
        self.redis = redis
        self.keys = keys
        self.now = T0
        self.stream = STREAM if keys == DEFAULT else keys.tagged_stream
        self.routing = RoutingFunctions(
            ClientCaller(redis),
            self.stream,
            terms or Terms(),
            library(keys),
            lambda: self.now,
            keys,
        )
        self.number = self.subjects = 0
        self.named = True  # releases name limits by their id

    async def start(self) -> None:
        await self.routing.load_library()
        catalogue = Catalogue(version="v1", resources=(resource("a1"),))
        await self.routing.publish(catalogue, "event")

    def quota(self, *budgets: Budget, rpm: int | None = None) -> Quota:
        return quota_at("k", rpm, None, budgets, self.now)

    async def acquire(self, quota: Quota, may_use: str = "0", **ask: Any) -> Decision:
        self.number += 1
        ask = {"lease": lease_of(f"r{self.number}"), **ask}
        made = made_ask(f"r{self.number}", quota=quota, may_use=may_use, **ask)
        try:
            return await self.routing.acquire(made)
        except LimitsUnknown:
            told = replace(made, tells=True)
            return await self.routing.acquire(told)

    async def refused(self, quota: Quota, may_use: str) -> str | None:
        """Why a request is refused, or None."""
        try:
            await self.acquire(quota, may_use)
        except QuotaRefused as refused:
            return REFUSALS[type(refused)]
        return None

    async def release(
        self, quota: Quota, tokens: int, nanos: int = 0, number: int | None = None
    ) -> None:
        request = f"r{number or self.number}"
        event = event_of(request, self.now, tokens, nanos)
        given: dict[str, Any] = {"quota": quota, "tokens": tokens, "nanos": nanos}
        if not self.named:
            # Those of a 429 of the account have no place for the id.
            given["verdict"] = Verdict(kind="neutral", of_account=True)
        await self.routing.release(made_release("a1", request, event=event, **given))

    async def resend(self, request: str, tokens: int) -> None:
        event = event_of(request, self.now, tokens, 0)
        name, version = self.keys.function("resend_v1"), self.keys.catalogue_version()
        args = name, 2, version, self.stream
        await self.redis.execute_command("FCALL", *args, "request", request, event)

    async def summed(self, tokens: int = 0, nanos: int = 0) -> None:
        """The router sums everything, of which SQL has this much without what is
        noted."""
        for recount in (await self.routing.recounts())[1]:
            noted = await self.routing.note_events(recount)
            assert noted
            assert await self.routing.recounted(recount, noted, Sum(tokens, nanos))

    async def spent(self, subject: str = KEY) -> tuple[int, int, int]:
        (spend,) = await self.routing.spend(subject)
        assert spend is not None
        return spend.tokens, spend.reserved, spend.sure

    async def told(self, kind: str) -> list[dict[str, Any]]:
        entries = await self.redis.xrange(self.stream)
        return [
            json.loads(e[b"data"]) for _, e in entries if e[b"kind"] == kind.encode()
        ]


def lease_of(request: str) -> bytes:
    return b'{"id":"%b","proxy_key_id":"k","team_id":"t"' % request.encode()


def event_of(request: str, at_ms: int, tokens: int, nanos: int) -> bytes:
    fields = {"id": request, "created_at_ms": at_ms, "proxy_key_id": "k"}
    fields |= {"team_id": "t", "total_tokens": tokens, "cost_nanos": nanos}
    return json.dumps(fields).encode()


def budget(subject: str = KEY, **terms: Any) -> Budget:
    return Budget(subject, **{"window": "day", **terms})
