"""Routing functions off the hot path: those of the router and the health service, and
what all services read. Raises as `functions.py` says."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from pydantic import ValidationError
from redis.exceptions import ResponseError

from libs.common.budgets import Budget
from libs.common.contracts.catalogue import Catalogue, HealthState, ResourceState
from libs.common.contracts.events import RegistryEvent, encode
from libs.common.errors import NoCatalogue
from libs.common.redis.client import Caller, Clock, servers_clock
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.routing.budgets import (
    Noted,
    Recount,
    Spend,
    Sum,
    encoded_at,
    spend_of,
    unknown_in,
)
from libs.common.routing.replies import (
    code_of,
    is_older,
    pairs_of,
    queue_of,
    report_of,
    state_of,
    unusable,
)
from libs.common.routing.types import Owner, Queue, Reported
from libs.common.settings.services import RoutingSettings
from libs.common.upstream_answers.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things are remembered, in milliseconds."""

    session_ttl_ms: int = 86_400_000
    id_ttl_ms: int = 86_400_000
    cooldown_ms: int = 30_000
    # Of ids that SQL does not know. Short, because SQL may learn an id that another
    # gateway relayed a moment ago.
    unknown_ttl_ms: int = 60_000
    limit_aware: bool = True  # limits of accounts matter (PROXY_LIMIT_AWARE)
    most_in_flight: int | None = None  # requests of each resource (PROXY_MAX_IN_FLIGHT)
    # How long requests may wait for a limit (PROXY_QUEUE_MAX_SECONDS), and those that
    # only one account can serve for a limit of that account.
    queue_ms: int = 0
    bound_queue_ms: int = 0

    @classmethod
    def of(cls, settings: RoutingSettings) -> "Terms":
        return cls(
            session_ttl_ms=int(settings.session_ttl_seconds * 1000),
            id_ttl_ms=int(settings.affinity_ttl_seconds * 1000),
            cooldown_ms=int(settings.cooldown_seconds * 1000),
            limit_aware=settings.limit_aware,
            most_in_flight=settings.max_in_flight,
            queue_ms=settings.queue_ms,
            bound_queue_ms=settings.bound_queue_ms,
        )

    @property
    def encoded(self) -> bytes:
        """As functions/queue.lua reads them; empty if nothing is limited."""
        if self.most_in_flight is None and not self.queue_ms:
            return b""
        most = self.most_in_flight or ""
        return f"{most} {self.queue_ms} {self.bound_queue_ms}".encode()


Owners = Mapping[str, Owner | None]
GoOn = Callable[[], Awaitable[bool]]
ASK_AGAIN_S = 0.05
# What was spent is summed every quarter of a second (docs/budgets.md).
SUMMED_WITHIN_S = 1.0
_unix_s: Final = time.time  # found once


class ControlFunctions:
    """The connection to the function library, and its calls that no request makes."""

    def __init__(
        self,
        caller: Caller,
        stream: str,
        terms: Terms | None = None,
        library: str | None = None,
        clock: Clock = servers_clock,
        keys: Keys = DEFAULT,
    ) -> None:
        """`library`: the source of the function library; for the router only. `clock`
        returns Unix ms, or '' for the server's clock."""
        self._keys = keys
        self._clock = clock
        self._caller = caller
        self._stream = stream
        self._version_key = keys.catalogue_version()
        self._terms = terms or Terms()
        self._encoded_terms = self._terms.encoded
        self._library = library

    async def load_library(self, *, anew: bool = False) -> None:
        """Load the function library unless Redis has it, or that of a newer version:
        a library keeps the functions that gateways of the version before call. `anew`:
        also if Redis has it, so that its memory is emptied. Router only."""
        ours, loaded = await self._libraries()
        differs = anew or loaded != ours
        if loaded is None or (differs and not is_older(ours, loaded)):
            await self._caller.call("FUNCTION", "LOAD", "REPLACE", ours)

    async def library_is_older(self) -> bool:
        """Has Redis the library of an older version? Router only."""
        ours, loaded = await self._libraries()
        return loaded is not None and is_older(loaded, ours)

    async def _libraries(self) -> tuple[str, str | None]:
        """The source of this version's library, and of the loaded one."""
        if self._library is None:
            raise AssertionError("only the router holds the library")
        listed = await self._caller.call(*self._keys.list_library, "WITHCODE")
        return self._library, code_of(listed)

    async def publish(self, catalogue: Catalogue, event_id: str) -> bool:
        """Store the catalogue with what derives from it, and emit a registry event.
        Returns False without doing anything if Redis has that version."""
        event = RegistryEvent(
            created_at_ms=now_ms(),
            version=catalogue.version,
            resources=tuple(resource.id for resource in catalogue.resources),
            aliases=tuple(alias.alias for alias in catalogue.aliases),
        )
        done = await self._fcall(
            "publish_v1",
            catalogue.version,
            catalogue.model_dump_json(),
            event_id,
            encode(event),
        )
        return bool(done)

    async def catalogue(self) -> Catalogue:
        """The published catalogue. Raises `NoCatalogue`."""
        document = await self._call("GET", self._keys.catalogue())
        if document is None:
            raise NoCatalogue
        try:
            return Catalogue.model_validate_json(document)
        except ValidationError as error:
            raise NoCatalogue("The catalogue is not one of ours.") from error

    async def catalogue_version(self) -> str | None:
        version = await self._call("GET", self._keys.catalogue_version())
        return None if version is None else str(version, "ascii")

    async def reports(self) -> dict[str, Reported]:
        """The last ledger report of each gateway that Redis knows."""
        seconds, micros = await self._call("TIME")
        now = int(seconds) * 1000 + int(micros) // 1000
        found = pairs_of(await self._call("HGETALL", self._keys.reports()))
        reported = {k: report_of(v, now) for k, v in found.items()}
        return {k: r for k, r in reported.items() if r is not None}

    async def impaired(self, gateways: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The parts that these gateways say are impaired; of those that say so."""
        if not gateways:
            return {}
        found = await self._call("MGET", *map(self._keys.impaired, gateways))
        return {
            gateway: tuple(parts.decode().split(","))
            for gateway, parts in zip(gateways, found, strict=True)
            if parts
        }

    async def learned_accounts(self) -> dict[str, str]:
        """Resource -> account, as upstreams named them."""
        found = pairs_of(await self._call("HGETALL", self._keys.accounts()))
        return {k: v.decode() for k, v in found.items()}

    async def reap(
        self,
        silent_ms: int,
        *,
        strays: bool = False,
        go_on: GoOn | None = None,
        ended: Callable[[int], None] | None = None,
    ) -> int:
        """End the leases of gateways without a heartbeat for `silent_ms`, and emit an
        `interrupted` request event for each. Returns how many. `strays`: also look for
        leases of gateways that never sent a heartbeat.

        Redis serves nobody during a call, so each one does a part. `go_on` is awaited
        between two of them; if it returns False, the next `reap` does the rest.
        `ended` is told how many each call ended, because a later call may fail."""
        look, total = 1 if strays else 0, 0
        more: list[Any] = []
        while True:
            given = silent_ms, self._clock(), look, *more
            count, *more = await self._fcall("reap_v2", *given)
            total += int(count)
            if ended:
                ended(int(count))
            if not more or (go_on and not await go_on()):
                return total

    async def sweep(self, *, go_on: GoOn | None = None) -> None:
        """End reservations whose requests hold no lease any more, also in parts."""
        more = await self._fcall("sweep_v1")
        while more and (go_on is None or await go_on()):
            more = await self._fcall("sweep_v1", *more)

    async def verdict(self, resource_id: str, verdict: Verdict) -> HealthState:
        """Apply the verdict of a health check; returns the resulting state."""
        cooldown = verdict.cooldown_ms
        reply = await self._fcall(
            "verdict_v1",
            resource_id,
            verdict.kind,
            verdict.cause,
            self._terms.cooldown_ms if cooldown is None else cooldown,
            "" if verdict.latency_ms is None else round(verdict.latency_ms, 3),
            self._clock(),
        )
        return HealthState(reply[1].decode()) if reply else HealthState.UNKNOWN

    async def states(self) -> list[ResourceState]:
        """All resources with their live figures, in catalogue order."""
        catalogue = await self.catalogue()
        reply = await self._fcall("states_v1", self._clock())
        if reply[0] != b"ok":
            raise NoCatalogue
        live = {row["id"]: row for row in msgspec.json.decode(reply[1])}
        return [state_of(r, live.get(r.id, {})) for r in catalogue.resources]

    async def affinity_count(self) -> int:
        """The number of sessions bound to a resource."""
        return int(await self._call("ZCOUNT", self._keys.sessions(), now_ms(), "+inf"))

    async def queues(self) -> list[Queue]:
        """The requests that wait."""
        found = iter(await self._fcall("queues_v1"))
        return [
            queue_of(waits_for.decode(), int(requests), int(shares))
            for waits_for, requests, shares in zip(found, found, found, strict=True)
        ]

    async def doubt(self) -> None:
        """Have all windows of budgets summed anew: Redis may be another server."""
        await self._fcall("doubt_v1")

    async def reserve(
        self, gateway_id: str, quota: str, held: Iterable[tuple[str, int]]
    ) -> None:
        """Restore what running requests may use, after Redis was emptied."""
        pairs = [part for pair in held for part in pair]
        await self._fcall("reserve_v1", gateway_id, quota, *pairs)

    async def spend(self, *subjects: str) -> list[Spend | None]:
        """What was spent in the windows that Redis counts, of each `key:<id>` or
        `team:<id>`; None where nothing is counted."""
        found = await self._fcall("spend_v2", *subjects)
        return [
            spend_of(subject, told.decode())
            for subject, told in zip(subjects, found, strict=True)
        ]

    async def summed_spend(
        self, budgets: Sequence[Budget], now_ms: int
    ) -> list[Spend | None]:
        """The same of budgets. Those of which Redis does not know what was spent are
        summed by the router; this waits for it, but not longer than SUMMED_WITHIN_S."""
        subjects = [budget.subject for budget in budgets]
        found = await self.spend(*subjects)
        unknown = unknown_in(budgets, found, now_ms)
        if unknown:
            counted = [encoded_at(budget, now_ms) for budget in unknown]
            await self._fcall("count_v1", *counted)
        loop = asyncio.get_running_loop()
        ends = loop.time() + SUMMED_WITHIN_S
        while unknown and loop.time() < ends:
            await asyncio.sleep(ASK_AGAIN_S)
            found = await self.spend(*subjects)
            unknown = unknown_in(budgets, found, now_ms)
        return found

    async def used(self, *key_ids: str) -> list[tuple[int, int]]:
        """The requests and tokens that the limits per minute of these keys count
        now."""
        found = await self._fcall("used_v1", self._clock(), *key_ids)
        return list(zip(found[::2], found[1::2], strict=True))

    async def recounts(self) -> tuple[int, list[Recount]]:
        """The age in ms of this Redis's content, and the windows that have to be summed
        anew."""
        age, *found = await self._fcall("recounts_v1")
        parts = iter(found)
        return int(age), [
            Recount(
                subject.decode(), since.decode(), int(start), int(end), int(res) == 1
            )
            for subject, since, start, end, res in zip(*[parts] * 5, strict=True)
        ]

    async def note_events(
        self,
        recount: Recount,
        used: Iterable[tuple[str, int, int]] = (),
        tell: bool = True,
    ) -> Noted | None:
        """Note requests of a window that is summed, with their tokens and cost. `tell`:
        the ids of all that are noted. None if it need not be summed any more."""
        triples = [part for each in used for part in each]
        found = await self._fcall("recount_v2", *recount.named, int(tell), *triples)
        return found and Noted(found[0], {id_.decode() for id_ in found[1]})

    async def recounted(self, recount: Recount, noted: Noted, used: Sum) -> bool:
        """Set the spend of a window: what SQL has without the requests that are noted,
        and those. False if it need not be summed any more, or lacks what other shards
        spent meanwhile."""
        given = *recount.named, noted.resent, *used
        return bool(await self._fcall("recounted_v2", *given))

    async def in_flight(self) -> int:
        """The number of leases of all gateways."""
        return sum(state.in_flight for state in await self.states())

    def _fcall(self, name: str, *args: Any) -> Coroutine[Any, Any, Any]:
        named = self._keys.function(name)
        return self._call("FCALL", named, 2, self._version_key, self._stream, *args)

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._caller.call(*command)
        except ResponseError as error:
            raise unusable(error) from error


def now_ms() -> int:
    return int(_unix_s() * 1000)
