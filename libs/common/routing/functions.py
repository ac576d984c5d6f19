"""Typed calls of the routing functions in Redis (services/router/functions).

Each call is one round trip. All changes of leases, affinity and health are made by
these functions. Raises `RedisAway` when Redis does not answer, `NoCatalogue` when it
has no library or no catalogue.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from libs.common.contracts.events import Reason
from libs.common.contracts.verdicts import Verdict
from libs.common.routing.control import ControlFunctions, Owners, Terms, now_ms
from libs.common.routing.replies import entry_id_of, refusal_of, unusable
from libs.common.routing.types import (
    Ask,
    Beat,
    Decision,
    Explanation,
    Lease,
    Owner,
    Refusal,
    Release,
    StreamEnds,
    model_digest,
)

__all__ = ["NO_REPORT", "Owners", "RoutingFunctions", "Terms"]

UNKNOWN = "-"  # the owner of an id that SQL does not know
NO_REPORT = b""  # of a caller without a ledger
REPLAYED = "r"
EXPLAINED = slice(5, 21)  # of the arguments of acquire, those that explain takes
_NOBODY: Owners = {}
_NEUTRAL = Verdict(kind="neutral")


class RoutingFunctions(ControlFunctions):
    """All routing functions: here those that gateways call."""

    async def acquire(self, ask: Ask) -> Decision:
        """Choose a resource and take a lease on it. Raises `UnknownIds`,
        `UnknownPool`, `NoResources`, `NoCapacity`, `OwnerLimited`,
        `OwnerGone` or `ForeignId`."""
        now = self._clock()
        call = self._acquire_call(ask, "", _decision_head(ask, now), now)
        further = ask.asker.further
        if ask.bound or further or ask.tried:
            call = (*call, *ask.bound, *further, *ask.tried)
        try:
            # Not by `_call`: each further coroutine is resumed separately.
            reply = await self._caller.call(*call)
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
        """Take a lease on the resource of the request's WebSocket. `decided`: the
        decision event was emitted already. Raises `OwnerGone` when the resource left
        the catalogue, `ForeignId` or `UnknownIds`."""
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
        """Raises `ForeignId` or `UnknownIds` if `ask` may not name its ids."""
        reply = await self._fcall("rpx_check_v1", *_ids_of(ask))
        if reply:
            raise refusal_of(reply)

    async def explain(self, ask: Ask, owner: Owner | None) -> Explanation:
        """Where `ask` would go, without effects. `owner`: that of its ids in SQL.
        Raises as `acquire` does, except for refusals that depend on the state of
        resources: those are the explanation's status."""
        told = owner.encoded() if owner else ""
        now = self._clock()
        args = self._acquire_call(ask, told, _decision_head(ask, now), now)[EXPLAINED]
        reply = await self._fcall("rpx_explain_v1", *args, *ask.bound, *ask.tried)
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

    def _acquire_call(
        self, ask: Ask, told: str, head: bytes, now: int | str
    ) -> tuple[Any, ...]:
        """The call of acquire up to its ids, as functions/acquire.lua lists the
        arguments. `told`: the owner that SQL returned, encoded, or ''."""
        asker = ask.asker
        return (
            "FCALL",
            "rpx_acquire_v2",
            2,
            self._version_key,
            self._stream,
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
            asker.tenant,
            1 if asker.strict else 0,
            asker.kinds,
        )

    def release(self, release: Release) -> Awaitable[Any]:
        """Report how an attempt ended. With an event the request ends, and the reply is
        the event's id in the stream.

        On a shared connection the call is sent when this returns, whether or not the
        caller awaits the reply."""
        return self._caller.call(*self._released(release))

    def report(self, release: Release, failed: Callable[[], None]) -> None:
        """The same without a reply. Calls `failed` if the call fails."""
        self._caller.tell(failed, *self._released(release))

    def _released(self, release: Release) -> tuple[Any, ...]:
        verdict, terms = release.verdict or _NEUTRAL, self._terms
        cooldown = verdict.cooldown_ms
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
            terms.cooldown_ms if cooldown is None else cooldown,
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

    async def heartbeat(self, gateway_id: str, report: bytes = NO_REPORT) -> Beat:
        """Send a heartbeat, with the ledger report (a `GatewayEvent`) as JSON."""
        version, known, born, first, last, added = await self._fcall(
            "rpx_heartbeat_v2", gateway_id, self._clock(), report
        )
        ends = StreamEnds(
            entry_id_of(first) if first else None, entry_id_of(last), added
        )
        return Beat(version.decode() or None, known == 1, born.decode(), ends)

    async def held(self, gateway_id: str) -> list[str]:
        """The requests whose leases a gateway holds."""
        found = await self._fcall("rpx_held_v1", gateway_id)
        return [request.decode() for request in found]

    async def resume(self, gateway_id: str, leases: Iterable[Lease]) -> int:
        """Restore leases of running requests, after Redis was emptied or the gateway
        was reaped; returns how many."""
        triples = [
            part
            for lease in leases
            for part in (lease.request_id, lease.resource_id, lease.record)
        ]
        return int(await self._fcall("rpx_resume_v1", gateway_id, *triples))

    async def adopt(self, sessions: Owners = _NOBODY, ids: Owners = _NOBODY) -> int:
        """Store owners of sessions and ids (digests) that Redis does not have; None for
        ids that SQL does not know. Returns how many were new."""
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
        """Store the account that an upstream named for a key; the router publishes it
        with the catalogue. Returns whether it is new."""
        return bool(await self._fcall("rpx_account_v1", resource_id, account_id))

    async def abandon(self, gateway_id: str, request_ids: list[str]) -> int:
        """Drop leases that the gateway does not know; returns how many."""
        return int(await self._fcall("rpx_abandon_v1", gateway_id, *request_ids))


def _ids_of(ask: Ask) -> tuple[Any, ...]:
    """The arguments of pin and check about the ids of a request."""
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
    """The decision event (JSON) without its closing brace: the function adds the
    resource and the reason."""
    made = ask.request_id, ask.attempt, now or now_ms(), ask.session_id, ask.pool_id
    if ask.cause:
        return _encode(_LaterHead(*made, ask.cause))[:-1]
    return _encode(_DecisionHead(*made))[:-1]
