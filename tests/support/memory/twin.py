"""Redis's routing functions, implemented by their Python twin, for gateways in memory.
Can be made unreachable, or return scripted results."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from libs.common.budgets import Budget
from libs.common.contracts.catalogue import Alias, Catalogue, Resource
from libs.common.contracts.prices import Price
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.budgets import Spend
from libs.common.routing.local_state import LocalRouting
from libs.common.routing.types import (
    DECIDED,
    Ask,
    Beat,
    Decision,
    Explanation,
    Kept,
    Lease,
    Owner,
    Refusal,
    Release,
    StreamEnds,
)

Owners = Mapping[str, Owner | None]
NOBODY: Owners = {}


def resource(name: str, **over: Any) -> Resource:
    given: dict[str, Any] = {
        "id": name,
        "name": name,
        "pool_id": "pool",
        "account_id": f"account-{name}",
        "weight": 1,
        "base_url": f"http://{name}.test/v1",
        "credential": f"env:KEY_{name.upper()}",
    }
    return Resource(**(given | over))


class Twin:
    """`says` takes precedence: decisions to return, errors to raise. `released`
    collects reports, `adopted` the owners that routing was told of."""

    def __init__(self, *resources: Resource, aliases: tuple[Alias, ...] = ()) -> None:
        self.local = LocalRouting(30_000)
        self.away = False
        self.says: deque[Decision | Exception] = deque()
        self.asked: list[Ask] = []
        self.released: list[Release] = []
        self.adopted: list[tuple[Owners, Owners]] = []
        self.abandoned: list[str] = []
        self.left: list[str] = []  # queues
        self.resumed: list[Lease] = []
        self.doubted = 0
        self.reserved: list[tuple[str, int]] = []
        self.counted = 0, 0  # requests and tokens of each key in the last minute
        self.spends: dict[str, Spend] = {}
        self.named: list[tuple[str, str]] = []
        self.leases: list[str] = []  # leases that Redis holds for this gateway
        self.page = 100  # of them
        self.beats: list[bytes] = []
        self.ends = StreamEnds()
        self.born = "born"
        self.knows_us = True
        self.prices: tuple[Price, ...] = ()
        self.publish(*resources, aliases=aliases)

    def publish(self, *resources: Resource, aliases: tuple[Alias, ...] = ()) -> None:
        version = f"v{len(resources)}" if resources else None
        self.version = version
        self.aliases = aliases
        self.local.publish(resources)

    def _answers(self) -> None:
        if self.away:
            raise RedisAway
        if self.version is None:
            raise NoCatalogue

    # What gateways ask -------------------------------------------------------

    async def require_functions(self) -> None:
        pass

    async def catalogue(self) -> Catalogue:
        self._answers()
        return Catalogue(
            version=self.version or "",
            resources=tuple(self.local.resources.values()),
            aliases=self.aliases,
            prices=self.prices,
        )

    async def acquire(self, ask: Ask) -> Decision:
        self.asked.append(ask)
        if self.says:
            said = self.says.popleft()
            if isinstance(said, Exception):
                raise said
            event = _event(ask, said.resource_id, said.reason)
            return replace(said, event=event)
        self._answers()
        choice = self.local.acquire(ask, 0)
        decided = DECIDED in ask.turn and choice.resource_id == ask.socket
        cause = ask.cause or choice.cause
        event = (
            b"" if decided else _event(ask, choice.resource_id, choice.reason, cause)
        )
        return Decision(
            choice.resource_id or "",
            choice.reason,
            self.version or "",
            trial=choice.how == "trial",
            event=event,
        )

    async def turns(
        self, gateway_id: str, classes: Iterable[str]
    ) -> tuple[float, list[str]]:
        """It is everybody's turn."""
        self._answers()
        return 0.02, [ask.request_id for ask in self.asked]

    def leave(self, entry: str, failed: Callable[[], None]) -> None:
        self.left.append(entry)

    async def check(self, ask: Ask) -> None:
        self._answers()
        self.local.check_ids(ask)

    async def explain(self, ask: Ask, owner: Owner | None) -> Explanation:
        self._answers()
        choice = self.local.choose(ask, 0)
        return Explanation("ok", choice.resource_id, choice.reason, False, 0, [])

    async def kept(self, sessions: Iterable[str], ids: Iterable[str]) -> list[Kept]:
        self._answers()
        found = [self.local.sessions.get(name) for name in sessions]
        found += [self.local.ids.get(name) for name in ids]
        return [Kept(owner, 1 if owner else 0) for owner in found]

    async def adopt(self, sessions: Owners = NOBODY, ids: Owners = NOBODY) -> int:
        self._answers()
        self.adopted.append((sessions, ids))
        self.local.remember(sessions, ids)
        return len(sessions) + len(ids)

    def report(self, release: Release, failed: Callable[[], None]) -> None:
        if self.away:
            failed()
            return
        self.released.append(release)
        self.local.release(release, 0)

    async def learn_account(self, resource_id: str, account_id: str) -> bool:
        self._answers()
        self.named.append((resource_id, account_id))
        return True

    # Heartbeats --------------------------------------------------------------

    async def heartbeat(self, gateway_id: str, report: bytes) -> Beat:
        if self.away:
            raise RedisAway
        self.beats.append(report)
        return Beat(self.version, self.knows_us, self.born, self.ends)

    async def held(
        self, gateway_id: str, place: tuple[bytes, ...] = ()
    ) -> tuple[tuple[bytes, ...], list[str]]:
        self._answers()
        start = int(place[0]) if place else 0
        end = start + self.page
        rest = (b"%d" % end,) if end < len(self.leases) else ()
        return rest, self.leases[start:end]

    async def abandon(self, gateway_id: str, request_ids: list[str]) -> int:
        self._answers()
        self.abandoned += request_ids
        return len(request_ids)

    async def used(self, *key_ids: str) -> list[tuple[int, int]]:
        self._answers()
        return [self.counted for _ in key_ids]

    async def spend(self, *subjects: str) -> list[Spend | None]:
        self._answers()
        return [self.spends.get(subject) for subject in subjects]

    async def summed_spend(
        self, budgets: Sequence[Budget], now_ms: int
    ) -> list[Spend | None]:
        return await self.spend(*[budget.subject for budget in budgets])

    async def doubt(self) -> None:
        self._answers()
        self.doubted += 1

    async def reserve(
        self, gateway_id: str, quota: str, held: Iterable[tuple[str, int]]
    ) -> None:
        self._answers()
        self.reserved += held

    async def resume(self, gateway_id: str, leases: Iterable[Lease]) -> int:
        self._answers()
        given = list(leases)
        self.resumed += given
        return len(given)


def _event(
    ask: Ask, resource_id: str | None, reason: str, cause: str | None = None
) -> bytes:
    told = {
        "request_id": ask.request_id,
        "attempt": ask.attempt,
        "resource_id": resource_id,
        "reason": reason,
        "cause": cause or ask.cause or None,
    }
    return msgspec.json.encode(told)


def refusal_with_event(refusal: Refusal) -> Refusal:
    """A refusal as Redis returns it when it has recorded the decision."""
    refusal.event = b'{"refused":true}'
    return refusal
