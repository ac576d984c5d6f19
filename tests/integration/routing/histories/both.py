"""Both sides, which get the same calls and must give the same results."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis.stateful import Bundle, RuleBasedStateMachine
from redis.asyncio import Redis

from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.routing.types import Ask, Queued, Release, model_digest
from libs.common.upstream_answers.verdicts import Verdict
from services.router.function_library import LIBRARY
from tests.integration.routing.histories.outcomes import asker, outcome, refused
from tests.integration.routing.histories.values import COOLDOWN_MS, STREAM
from tests.support.memory.reference import ReferenceRouting

ASKED = Bundle("asked")
WAITING = Bundle("waiting")
ENDED = Bundle("ended")


@dataclass
class Asked:
    """A request in progress, as its gateway knows it."""

    ask: Ask
    model: str | None
    resource_id: str  # empty if the answer to its acquire was lost
    tried: tuple[str, ...] = ()
    over: bool = field(default=False)


class Both(RuleBasedStateMachine):
    """The function library in Redis and its reference."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 1_760_000_000_000
        self.count = 0
        self.redis: Redis = connect(self.url)
        self.bounded_by({})
        self.held: dict[str, str] = {}  # request -> resource: the bare truth
        self.owner: dict[str, str] = {}  # request -> gateway

    def bounded_by(self, bounds: dict[str, Any]) -> None:
        terms = Terms(cooldown_ms=COOLDOWN_MS, **bounds)
        self.lua = RoutingFunctions(
            ClientCaller(self.redis), STREAM, terms, LIBRARY, lambda: self.now
        )
        self.python = ReferenceRouting(COOLDOWN_MS, terms=terms)

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    def _acquire(self, *, model: str | None, lost: bool, **given: Any) -> Asked | None:
        self.count += 1
        ask = Ask(
            request_id=f"r{self.count}",
            decision_id=f"d{self.count}",
            attempt=1,
            gateway_id=given["gateway"],
            pool_id=given["pool"],
            session_id=None,
            session=given["session"],
            model=model_digest(model),
            bound=given["bound"],
            account_bound=given["encrypted"],
            tried=(),
            previous="",
            lease=b'{"id":"r%d"' % self.count,
            draw=given["draw"],
            resolved=given["resolved"],
            asker=asker(given),
            socket=given["socket"][0],
            turn=given["socket"][1],
            tokens=given["tokens"],
            place=given.get("place"),
        )
        self.check_ids(ask)
        chosen = self.ask_both(ask)
        if ask.place and not chosen and ask.place.entry(ask) in self.waits():
            return Asked(ask, model, "")
        return Asked(ask, model, "" if lost else chosen) if chosen else None

    def waits(self) -> set[str]:
        """The entries of all queues."""
        queues = self.python.queues.by_class.values()
        return {entry for queue in queues for _, entry in queue.order}

    def check_ids(self, ask: Ask) -> None:
        """Ids can also be checked without routing."""

        def ours() -> tuple[str, ...]:
            self.python.check_ids(ask)
            return ()

        def theirs() -> tuple[str, ...]:
            self.run(self.lua.check(ask))
            return ()

        assert refused(theirs) == refused(ours)

    def ask_both(self, ask: Ask) -> str | None:
        ours = outcome(lambda: self.python.acquire(ask, self.now))
        theirs = outcome(lambda: self.run(self.lua.acquire(ask)))
        assert theirs == ours
        if ours[0] is Queued:
            self.held.pop(ask.request_id, None)
        if not isinstance(ours[0], str):
            return None
        self.held[ask.request_id] = ours[0]
        self.owner[ask.request_id] = ask.gateway_id
        return ours[0]

    def report(
        self,
        asked: Asked,
        verdict: Verdict | None,
        learned: tuple[str, ...] = (),
        *,
        over: bool = True,
        limits: str = "",
    ) -> None:
        release = Release(
            request_id=asked.ask.request_id,
            gateway_id=asked.ask.gateway_id,
            resource_id=asked.resource_id,
            verdict=verdict,
            session=asked.ask.session,
            learned=learned,
            model=asked.model,
            event=b"{}" if over else None,
            tenant=asked.ask.asker.tenant,
            limits=limits,
        )
        self.run(self._released(release))
        self.python.release(release, self.now)

    async def _released(self, release: Release) -> None:
        await self.lua.release(release)
