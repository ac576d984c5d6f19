"""Typed calls of the routing functions in Redis (services/router/functions).

Each call is one round trip. All changes of leases, affinity and health are made by
these functions. Raises `RedisAway` when Redis does not answer, `NoCatalogue` when it
has no library or no catalogue.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from libs.common.errors import NoCatalogue
from libs.common.redis.client import Caller, Clock, servers_clock
from libs.common.redis.keys import DEFAULT, Keys
from libs.common.redis.packing import flat
from libs.common.routing.call_forms import (
    ACQUIRE,
    MOST_NANOS,
    MOST_TOKENS,
    RELEASE,
    Names,
    decision_head,
    further_of,
    ids_of,
)
from libs.common.routing.control import ControlFunctions, Owners, Terms
from libs.common.routing.hot_calls import HotCalls
from libs.common.routing.replies import (
    DECISION_BEHIND,
    decision_of,
    entry_id_of,
    functions_of,
    kept_of,
    refusal_of,
)
from libs.common.routing.types import (
    Ask,
    Beat,
    Decision,
    Explanation,
    Kept,
    Lease,
    Owner,
    Release,
    StreamEnds,
)
from libs.common.upstream_answers.verdicts import Verdict

__all__ = ["NO_REPORT", "Owners", "RoutingFunctions", "Terms"]

UNKNOWN = "-"  # the owner of an id that SQL does not know
NO_REPORT = b""  # of a caller without a ledger
REPLAYED: Final = "r"
ACCOUNT: Final = "account"  # the scope of a limit
Place = tuple[bytes, ...]  # among pages
FIRST: Final[Place] = ()
# Redis looks for each one in all resources, and serves nobody meanwhile.
ABANDONED_AT_ONCE: Final = 20
# The functions that gateways call. A library of an older version lacks some.
CALLED = frozenset(
    (
        *("acquire_v4", "pin_v4", "check_v1", "release_v3", "heartbeat_v2", "held_v2"),
        *("queue_v1", "turns_v1", "leave_v1"),
        *("resume_v1", "adopt_v1", "account_v1", "abandon_v1"),
        *("target_v1", "owners_v1"),
        *("acquire_v5", "pin_v5", "queue_v2", "target_v2", "release_v4", "release_v5"),
        *("resend_v1", "reserve_v1", "doubt_v1", "count_v1"),
    )
)
# Of the arguments of acquire, those that explain takes: not tenant, strict and kinds.
EXPLAINED = (slice(5, 21), slice(24, 26))
_NOBODY: Owners = {}
_NEUTRAL: Final = Verdict(kind="neutral")
_encode: Final = msgspec.json.Encoder().encode
_decision_of: Final[Callable[[Any], Decision]] = decision_of


class RoutingFunctions(ControlFunctions, HotCalls):
    """All routing functions: here those that gateways call."""

    def __init__(
        self,
        caller: Caller,
        stream: str,
        terms: Terms | None = None,
        library: str | None = None,
        clock: Clock = servers_clock,
        keys: Keys = DEFAULT,
    ) -> None:
        super().__init__(caller, stream, terms, library, clock, keys)
        self._names = Names(keys)  # made once, not for each request

    async def require_functions(self) -> None:
        """Raises `NoCatalogue` when Redis has no library, or an older version's."""
        loaded = functions_of(await self._call(*self._keys.list_library))
        if not loaded:
            raise NoCatalogue("No router has loaded the routing functions yet.")
        if missing := frozenset(map(self._keys.function, CALLED)) - loaded:
            names = ", ".join(sorted(missing))
            raise NoCatalogue(f"An older router loaded functions without {names}.")

    def acquire(self, ask: Ask) -> Awaitable[Decision]:
        """Choose a resource and take a lease on it. The decision has no event when the
        request has that of its socket's upgrade. Raises `UnknownIds`, `LimitsUnknown`,
        `UnknownPool`, `NoResources`, `NoCapacity`, `OwnerLimited`, `OwnerGone`,
        `ForeignId`, or `Busy` if it may wait; with a `place` then `Queued`. For a key
        with limits also a `QuotaRefused`."""
        quota, now, names = ask.quota, self._clock(), self._names
        name, told = names.acquire, ""
        read = _decision_of
        if quota is not None:
            name, read = names.acquire_counted, DECISION_BEHIND[quota.left_size]
            if ask.may_use == "0" and not ask.tells:
                told = quota.id  # a tenth of the limits' size
        on_socket = ask.place is not None or ask.socket or ask.turn
        if on_socket:
            name = names.of(ask)
        call = self._acquire_call(name, ask, told, decision_head(ask, now), now)
        if on_socket or ask.bound or ask.asker.further or ask.tried:
            call = (*call, *further_of(ask))
        if quota is not None and not told:
            call = (*call, ask.may_use, quota.text)
        # No coroutine: each one is resumed separately.
        return self._caller.ask(read, call)

    async def check(self, ask: Ask) -> None:
        """Raises `ForeignId` or `UnknownIds` if `ask` may not name its ids."""
        reply = await self._fcall("check_v1", *ids_of(ask))
        if reply:
            raise refusal_of(reply)

    async def explain(self, ask: Ask, owner: Owner | None) -> Explanation:
        """Where `ask` would go, without effects. `owner`: that of its ids in SQL.
        Raises as `acquire` does, except for refusals that depend on the state of
        resources: those are the explanation's status."""
        told = owner.encoded() if owner else ""
        now = self._clock()
        head = decision_head(ask, now)
        call = self._acquire_call(self._names.acquire, ask, told, head, now)
        given = tuple(flat(call))
        args = [each for part in EXPLAINED for each in given[part]]
        reply = await self._fcall("explain_v3", *args, *ask.bound, *ask.tried)
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
        self, name: str, ask: Ask, told: str, head: bytes, now: int | str
    ) -> tuple[Any, ...]:
        """The call of acquire or pin (`name`) up to its ids. `told`: the owner that SQL
        returned, encoded, the id of the limits of its key, or ''."""
        asker = ask.asker
        bound = 1 if ask.account_bound else 0
        resolved = REPLAYED if ask.replayed else 1 if ask.resolved else 0
        strict = 1 if asker.strict else 0
        tokens = ask.tokens if self._terms.limit_aware else None
        key = (
            name,
            self._version_key,
            self._stream,
            ask.gateway_id,
            ask.attempt,
            ask.pool_id or "",
            ask.model,
            bound,
            resolved,
            told,
            now,
            ask.previous,
            len(ask.bound),
            asker.tenant,
            strict,
            asker.kinds,
            self._encoded_terms,
        )
        return (
            ACQUIRE,
            key,
            ask.request_id,
            ask.decision_id,
            ask.session,
            str(ask.draw),
            head,
            ask.lease,
            "" if tokens is None else str(tokens),
        )

    async def turns(
        self, gateway_id: str, classes: Iterable[str]
    ) -> tuple[float, list[str]]:
        """Seconds until the gateway should ask again, and those of its requests in the
        queues of `classes` whose turn it is."""
        terms, now = self._encoded_terms, self._clock()
        reply = await self._fcall("turns_v1", gateway_id, now, terms, *classes)
        return int(reply[0]) / 1000, [request.decode() for request in reply[1:]]

    def leave(self, entry: str, failed: Callable[[], None]) -> None:
        """A request does not wait any more. Calls `failed` if the call fails; then the
        entry expires with the next one of its gateway."""
        key, stream = self._version_key, self._stream
        call = "FCALL", self._names.leave, 2, key, stream, entry, self._clock()
        self._caller.tell(failed, call)

    def release(self, release: Release) -> Awaitable[Any]:
        """Report how an attempt ended. With an event the request ends, and the reply is
        the event's id in the stream, or ALONE (`wire.py`).

        On a shared connection the call is sent when this returns, whether or not the
        caller awaits the reply."""
        return self._caller.call(*self._released(release))

    def report(self, release: Release, failed: Callable[[], None]) -> None:
        """The same without a reply. Calls `failed` if the call fails."""
        self._caller.tell(failed, self._released(release))

    def _released(self, release: Release) -> tuple[Any, ...]:
        names, terms, verdict = self._names, self._terms, release.verdict or _NEUTRAL
        # msgspec formats a number at half the cost of str().
        cooldown, latency_ms = verdict.cooldown_ms, verdict.latency_ms
        kind, model = verdict.kind if release.verdict else "", release.model
        aware, quota, learned = terms.limit_aware, release.quota, release.learned
        name, scope = names.release, ACCOUNT if verdict.of_account and aware else ""
        limits = release.limits if aware else ""
        if quota is not None:
            tokens, nanos = release.tokens, release.nanos
            if scope or limits or tokens >= MOST_TOKENS or nanos >= MOST_NANOS:
                name = names.release_counted
                learned = str(tokens), str(nanos), quota.text, *learned
            else:
                name, scope = names.release_known, quota.id
                limits = str(nanos * MOST_TOKENS + tokens)
        key = (
            name,
            self._version_key,
            self._stream,
            release.gateway_id,
            release.resource_id,
            kind,
            verdict.cause,
            terms.cooldown_ms if cooldown is None else cooldown,
            self._clock(),
            terms.session_ttl_ms,
            terms.id_ttl_ms,
            model or "",
            release.tenant,
            scope,
        )
        return (
            RELEASE,
            key,
            release.request_id,
            "" if latency_ms is None else _encode(latency_ms).decode(),
            release.session,
            release.event or b"",
            limits,
            *learned,
        )

    async def heartbeat(self, gateway_id: str, report: bytes = NO_REPORT) -> Beat:
        """Send a heartbeat, with the ledger report (a `GatewayEvent`) as JSON."""
        version, known, born, first, last, added = await self._fcall(
            "heartbeat_v2", gateway_id, self._clock(), report
        )
        ends = StreamEnds(
            entry_id_of(first) if first else None, entry_id_of(last), added
        )
        return Beat(version.decode() or None, known == 1, born.decode(), ends)

    async def held(
        self, gateway_id: str, place: Place = FIRST
    ) -> tuple[Place, list[str]]:
        """A page of the requests whose leases a gateway holds, and the place of the
        next one; FIRST behind the last. Some requests may be on two pages."""
        next_, found = await self._fcall("held_v2", gateway_id, *place)
        return tuple(next_), [request.decode() for request in found]

    async def resume(self, gateway_id: str, leases: Iterable[Lease]) -> int:
        """Restore leases of running requests, after Redis was emptied or the gateway
        was reaped; returns how many."""
        triples = [
            part
            for lease in leases
            for part in (lease.request_id, lease.resource_id, lease.record)
        ]
        return int(await self._fcall("resume_v1", gateway_id, *triples))

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
        return int(await self._fcall("adopt_v1", *ttls, self._clock(), *pairs))

    async def kept(self, sessions: Iterable[str], ids: Iterable[str]) -> list[Kept]:
        """The owners of sessions and then of ids (digests), as far as Redis knows
        them. Has no effects."""
        named = [f"session:{digest}" for digest in sessions]
        named += [f"bound:{digest}" for digest in ids]
        reply = await self._fcall("owners_v1", *named)
        return [
            kept_of(owner, left)
            for owner, left in zip(reply[::2], reply[1::2], strict=True)
        ]

    async def learn_account(self, resource_id: str, account_id: str) -> bool:
        """Store the account that an upstream named for a key; the router publishes it
        with the catalogue. Returns whether it is new."""
        return bool(await self._fcall("account_v1", resource_id, account_id))

    async def abandon(self, gateway_id: str, request_ids: list[str]) -> int:
        """Drop leases that the gateway does not know; returns how many."""
        dropped = 0
        for start in range(0, len(request_ids), ABANDONED_AT_ONCE):
            part = request_ids[start : start + ABANDONED_AT_ONCE]
            dropped += int(await self._fcall("abandon_v1", gateway_id, *part))
        return dropped
