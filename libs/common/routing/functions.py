"""The typed door to the routing functions in Redis (`services/router/library.lua`).

Every change of leases, affinity and health goes through here, one round trip
each. Raises `RedisAway` when Redis does not answer, `NoCatalogue` when it
holds no library or no catalogue yet.
"""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import ValidationError
from redis.exceptions import ResponseError

from libs.common.contracts.catalogue import Catalogue, HealthState, ResourceState
from libs.common.contracts.events import Reason, RegistryEvent
from libs.common.contracts.verdicts import Verdict
from libs.common.errors import NoCatalogue
from libs.common.redis import keys
from libs.common.redis.client import Caller, Clock, servers_clock
from libs.common.routing.replies import (
    entry_id_of,
    holds_library,
    pairs_of,
    refusal_of,
    report_of,
    state_of,
    unusable,
)
from libs.common.routing.types import (
    Ask,
    Beat,
    Decision,
    Explanation,
    Lease,
    Owner,
    Refusal,
    Release,
    Reported,
    StreamEnds,
    model_digest,
)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things are remembered, in milliseconds."""

    session_ttl_ms: int = 86_400_000
    id_ttl_ms: int = 86_400_000
    cooldown_ms: int = 30_000
    # Of ids that SQL does not know either. It may learn of them: an answer that
    # another gateway relayed a moment ago is still on its way there.
    unknown_ttl_ms: int = 60_000


Owners = Mapping[str, Owner | None]
UNKNOWN = "-"
NO_REPORT = b""  # of a caller that keeps no books
REPLAYED = "r"
_NOBODY: Owners = {}
_SAID = Verdict(kind="neutral")


class RoutingFunctions:
    """Calls into the function library."""

    def __init__(
        self,
        caller: Caller,
        stream: str,
        terms: Terms | None = None,
        library: str | None = None,
        clock: Clock = servers_clock,
    ) -> None:
        """`library` is the source of the function library: the router's alone.
        `clock` gives Unix ms, or nothing for the server's own clock."""
        self._clock = clock
        self._caller = caller
        self._stream = stream
        self._version_key = keys.catalogue_version()
        self._terms = terms or Terms()
        self._library = library

    async def acquire(self, ask: Ask) -> Decision:
        """Choose a resource and take a lease on it. Raises `UnknownIds`,
        `UnknownPool`, `NoResources`, `NoCapacity`, `OwnerLimited`,
        `OwnerGone` or `ForeignId`."""
        now = self._clock()
        head = _decision_head(ask, now)
        asked = self._asked(ask, "", head, now)
        asker = ask.asker
        try:
            # Not by `_call`: each coroutine more is woken once more, too.
            reply = await self._caller.call(
                "FCALL",
                "rpx_acquire_v2",
                2,
                self._version_key,
                self._stream,
                *asked,
                asker.tenant,
                1 if asker.strict else 0,
                asker.kinds,
                *ask.bound,
                *asker.further,
                *ask.tried,
            )
        except ResponseError as error:
            raise unusable(error) from error
        if isinstance(reply, list):
            refusal = refusal_of(reply)
            if isinstance(refusal, Refusal) and len(reply) == 3:
                refusal.event = reply[2]
            raise refusal
        resource_id, reason, version, trial, event = reply.split(b"|", 4)
        return Decision(
            resource_id.decode(),
            reason.decode(),
            version.decode(),
            False,
            trial == b"1",
            event,
        )

    async def pin(self, ask: Ask, resource_id: str, *, decided: bool) -> Decision:
        """Take a lease on the resource that a request's socket leads to. `decided`:
        the decision's event was written already. Raises `OwnerGone` when the
        resource is not in the catalogue any more, `ForeignId`, or `UnknownIds`."""
        head = b"" if decided else _decision_head(ask, self._clock())
        reply = await self._fcall(
            "rpx_pin_v2",
            ask.gateway_id,
            ask.request_id,
            ask.attempt,
            ask.decision_id,
            resource_id,
            head,
            ask.lease,
            ask.previous,
            *_ids_of(ask),
        )
        if isinstance(reply, list):
            raise refusal_of(reply)
        event = (
            head
            and head
            + (
                f',"resource_id":"{resource_id}","reason":"socket","candidates":[]}}'
            ).encode()
        )
        return Decision(resource_id, Reason.SOCKET, reply.decode(), event=event)

    async def check(self, ask: Ask) -> None:
        """May `ask` name its ids? Raises `ForeignId` or `UnknownIds`."""
        reply = await self._fcall("rpx_check_v1", *_ids_of(ask))
        if reply:
            raise refusal_of(reply)

    async def explain(self, ask: Ask, owner: Owner | None) -> Explanation:
        """Where `ask` would go, without doing anything. `owner` is what SQL says
        of its ids. Raises as `acquire` does, but for the refusals that depend on
        the resources' state: they are the explanation's status."""
        told = owner.encoded() if owner else ""
        now = self._clock()
        asked = self._asked(ask, told, _decision_head(ask, now), now)
        reply = await self._fcall("rpx_explain_v1", *asked, *ask.bound, *ask.tried)
        if len(reply) != 6:
            raise refusal_of(reply)
        status, resource, reason, trial, wait, candidates = reply
        return Explanation(
            status=status.decode(),
            resource_id=resource.decode() or None,
            reason=reason.decode(),
            trial=trial == 1,
            wait_ms=int(wait),
            candidates=msgspec.json.decode(candidates),
        )

    def _asked(
        self, ask: Ask, told: str, head: bytes, now: int | str
    ) -> tuple[Any, ...]:
        """The arguments that acquire and explain begin with, as library.lua lists
        them."""
        return (
            ask.gateway_id,
            ask.request_id,
            ask.attempt,
            ask.decision_id,
            ask.pool_id or "",
            ask.session,
            ask.model,
            1 if ask.account_bound else 0,
            REPLAYED if ask.replayed else 1 if ask.resolved else 0,
            told,
            ask.draw,
            head,
            ask.lease,
            now,
            ask.previous,
            len(ask.bound),
        )

    def release(self, release: Release) -> Awaitable[Any]:
        """Report how an attempt ended; with an event, end the request: then the reply
        is that event's id in the stream.

        On a shared connection it is on its way when this returns, whether or
        not the caller lives to await it.
        """
        return self._caller.call(*self._released(release))

    def report(self, release: Release, failed: Callable[[], None]) -> None:
        """The same, for whoever has nothing to wait for; `failed` is called should
        it not arrive."""
        self._caller.tell(failed, *self._released(release))

    def _released(self, release: Release) -> tuple[Any, ...]:
        verdict, terms = release.verdict or _SAID, self._terms
        pause = verdict.cooldown_ms
        return (
            "FCALL",
            "rpx_release_v2",
            2,
            self._version_key,
            self._stream,
            release.gateway_id,
            release.request_id,
            release.resource_id,
            verdict.kind if release.verdict else "",
            verdict.cause,
            terms.cooldown_ms if pause is None else pause,
            "" if verdict.latency_ms is None else verdict.latency_ms,
            self._clock(),
            release.session,
            terms.session_ttl_ms,
            terms.id_ttl_ms,
            model_digest(release.model),
            release.model or "",
            release.event or b"",
            release.tenant,
            *release.learned,
        )

    async def load_library(self) -> None:
        """Install the function library when it is not there or another version
        is. Router only."""
        if self._library is None:
            raise AssertionError("only the router holds the library")
        listed = await self._caller.call(
            "FUNCTION", "LIST", "LIBRARYNAME", "rpx", "WITHCODE"
        )
        if not holds_library(listed, self._library):
            await self._caller.call("FUNCTION", "LOAD", "REPLACE", self._library)

    async def publish(self, catalogue: Catalogue, event_id: str) -> bool:
        """Store the catalogue and rebuild what derives from it, with a registry
        event; False (and nothing done) when that version is there already."""
        event = RegistryEvent(
            created_at_ms=_now_ms(),
            version=catalogue.version,
            resources=tuple(resource.id for resource in catalogue.resources),
            aliases=tuple(alias.alias for alias in catalogue.aliases),
        )
        done = await self._fcall(
            "rpx_publish_v1",
            catalogue.version,
            catalogue.model_dump_json(),
            event_id,
            event.model_dump_json(),
        )
        return bool(done)

    async def catalogue(self) -> Catalogue:
        """The catalogue as published. Raises `NoCatalogue`."""
        document = await self._call("GET", keys.catalogue())
        if document is None:
            raise NoCatalogue
        try:
            return Catalogue.model_validate_json(document)
        except ValidationError as error:
            raise NoCatalogue("The catalogue is not one of ours.") from error

    async def catalogue_version(self) -> str | None:
        version = await self._call("GET", keys.catalogue_version())
        return None if version is None else str(version, "ascii")

    async def heartbeat(self, gateway_id: str, report: bytes = NO_REPORT) -> Beat:
        """Say that a gateway lives, and how its books stand: a `GatewayEvent`."""
        version, known, born, first, last, added = await self._fcall(
            "rpx_heartbeat_v2", gateway_id, self._clock(), report
        )
        ends = StreamEnds(
            entry_id_of(first) if first else None, entry_id_of(last), added
        )
        return Beat(version.decode() or None, known == 1, born.decode(), ends)

    async def reports(self) -> dict[str, Reported]:
        """The books of each gateway that Redis has heard of lately."""
        seconds, micros = await self._call("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        found = pairs_of(await self._call("HGETALL", keys.reports()))
        reported = {k: report_of(v, now_ms) for k, v in found.items()}
        return {k: r for k, r in reported.items() if r is not None}

    async def held(self, gateway_id: str) -> list[str]:
        """The requests whose leases a gateway holds."""
        found = await self._fcall("rpx_held_v1", gateway_id)
        return [request.decode() for request in found]

    async def resume(self, gateway_id: str, leases: Iterable[Lease]) -> int:
        """Put back leases of requests that are still running, after Redis was
        emptied or the gateway was taken for dead; returns how many."""
        triples = [
            part
            for lease in leases
            for part in (lease.request_id, lease.resource_id, lease.record)
        ]
        return int(await self._fcall("rpx_resume_v1", gateway_id, *triples))

    async def adopt(self, sessions: Owners = _NOBODY, ids: Owners = _NOBODY) -> int:
        """Remember whose sessions and ids (digests) these are, where Redis does
        not know it; None for those that nobody knows. Returns how many were new."""
        pairs = [
            part
            for kind, owners in (("session", sessions), ("bound", ids))
            for name, owner in owners.items()
            for part in (f"{kind}:{name}", owner.encoded() if owner else UNKNOWN)
        ]
        terms = self._terms
        ttls = terms.session_ttl_ms, terms.id_ttl_ms, terms.unknown_ttl_ms
        return int(await self._fcall("rpx_adopt_v1", *ttls, self._clock(), *pairs))

    async def learn_account(self, resource_id: str, account_id: str) -> bool:
        """An upstream's answer named the account of a key; True when that is
        news. The router publishes it with the catalogue."""
        return bool(await self._fcall("rpx_account_v1", resource_id, account_id))

    async def learned_accounts(self) -> dict[str, str]:
        """Resource to account, as upstreams named them."""
        found = pairs_of(await self._call("HGETALL", keys.accounts()))
        return {k: v.decode() for k, v in found.items()}

    async def abandon(self, gateway_id: str, request_ids: list[str]) -> int:
        """Drop leases the gateway no longer knows; returns how many."""
        return int(await self._fcall("rpx_abandon_v1", gateway_id, *request_ids))

    async def reap(self, silent_ms: int, *, strays: bool = False) -> int:
        """End the leases of gateways without a heartbeat for `silent_ms`; one
        `interrupted` request event each. Returns how many. `strays`: also look
        for leases of gateways that never beat."""
        look = 1 if strays else 0
        return int(await self._fcall("rpx_reap_v1", silent_ms, self._clock(), look))

    async def verdict(self, resource_id: str, verdict: Verdict) -> HealthState:
        """Apply a health check's verdict; returns the resulting health state."""
        pause = verdict.cooldown_ms
        reply = await self._fcall(
            "rpx_verdict_v1",
            resource_id,
            verdict.kind,
            verdict.cause,
            self._terms.cooldown_ms if pause is None else pause,
            "" if verdict.latency_ms is None else round(verdict.latency_ms, 3),
            self._clock(),
        )
        return HealthState(reply[1].decode()) if reply else HealthState.UNKNOWN

    async def states(self) -> list[ResourceState]:
        """Every resource with its live figures, in catalogue order."""
        catalogue = await self.catalogue()
        reply = await self._fcall("rpx_states_v1", self._clock())
        if reply[0] != b"ok":
            raise NoCatalogue
        live = {row["id"]: row for row in msgspec.json.decode(reply[1])}
        return [state_of(r, live.get(r.id, {})) for r in catalogue.resources]

    async def affinity_count(self) -> int:
        """Sessions bound at this moment."""
        return int(await self._call("ZCOUNT", keys.sessions(), _now_ms(), "+inf"))

    async def in_flight(self) -> int:
        """Leases held at this moment, over all gateways."""
        return sum(state.in_flight for state in await self.states())

    def _fcall(self, name: str, *args: Any) -> Coroutine[Any, Any, Any]:
        return self._call("FCALL", name, 2, self._version_key, self._stream, *args)

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._caller.call(*command)
        except ResponseError as error:
            raise unusable(error) from error


def _ids_of(ask: Ask) -> tuple[Any, ...]:
    """The arguments of pin and check that say which ids a request names."""
    asker = ask.asker
    return (
        1 if ask.resolved else 0,
        asker.tenant,
        1 if asker.strict else 0,
        asker.kinds,
        *ask.bound,
        *asker.further,
    )


class _DecisionHead(msgspec.Struct, gc=False):
    request_id: str
    attempt: int
    created_at_ms: int | str
    session_id: str | None
    pool_id: str | None


class _LaterHead(_DecisionHead, gc=False):
    cause: str


_encode = msgspec.json.Encoder().encode


def _decision_head(ask: Ask, now: int | str) -> bytes:
    """The decision event as far as the gateway knows it, its brace left open:
    the function adds what it chose, and why."""
    made = ask.request_id, ask.attempt, now or _now_ms(), ask.session_id, ask.pool_id
    if ask.cause:
        return _encode(_LaterHead(*made, ask.cause))[:-1]
    return _encode(_DecisionHead(*made))[:-1]


def _now_ms() -> int:
    return int(time.time() * 1000)
