"""The typed door to the routing functions in Redis (`services/router/library.lua`).

Every change of leases, affinity and health goes through here, one round trip
each. Raises `RedisAway` when Redis does not answer, `NoCatalogue` when it
holds no library or no catalogue yet.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from libs.common import keys
from libs.common.contracts import (
    Catalogue,
    HealthState,
    RegistryEvent,
    Resource,
    ResourceState,
    Verdict,
)
from libs.common.errors import NoCatalogue, RedisAway


def digest(value: str) -> str:
    """A client's or an upstream's id as part of a key: whatever its length and
    alphabet, 32 hex characters."""
    return hashlib.blake2b(value.encode("utf-8", "replace"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Ask:
    """What acquire needs to know of one attempt."""

    request_id: str
    decision_id: str
    attempt: int
    gateway_id: str
    pool_id: str | None
    session_id: str | None
    bound: tuple[str, ...]  # digests of upstream ids the request names, newest first
    account_bound: bool  # carries encrypted content: only its own account can read it
    tried: tuple[str, ...]  # resources that failed this request already
    lease: bytes  # JSON object of the request event so far, without its last brace
    draw: int  # a random number, so that the choice itself is a pure function


@dataclass(frozen=True, slots=True)
class Decision:
    """Where an attempt goes. `version` is the catalogue the choice was made from."""

    resource_id: str
    reason: str
    version: str
    degraded: bool = False
    trial: bool = False  # half open: the first request after a pause


class UnknownPool(Exception):
    """The request names a pool that is not in the catalogue."""

    def __init__(self, pools: tuple[str, ...]) -> None:
        self.pools = pools
        super().__init__()


class NoResources(Exception):
    """The catalogue is empty."""


class NoCapacity(Exception):
    """No resource of the pool may be tried (now)."""

    def __init__(self, retry_after_ms: int) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__()


class OwnerLimited(Exception):
    """The only account that can read the request's state is rate limited."""

    def __init__(self, retry_after_ms: int) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__()


class OwnerGone(Exception):
    """No working key of the account that can read the request's state is left."""


@dataclass(frozen=True, slots=True)
class Release:
    """How one attempt ended. `event` is the request event's JSON, on the last one."""

    request_id: str
    gateway_id: str
    resource_id: str
    verdict: Verdict
    session_id: str | None  # bound to the resource when the verdict is ok
    learned: tuple[str, ...]  # digests of ids this answer minted
    event: bytes | None


class Caller(Protocol):
    """How a command reaches Redis: the shared connection, or a client."""

    def call(self, *command: Any) -> Awaitable[Any]: ...


class ClientCaller:
    """Calls by an ordinary client, for processes off the hot path."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def call(self, *command: Any) -> Any:
        try:
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        except ResponseError:
            raise
        except (RedisError, OSError) as error:
            raise RedisAway("Redis does not answer.") from error


Clock = Callable[[], int | str]


def servers_clock() -> str:
    """Let Redis say what time it is: skewed gateways cannot bend it."""
    return ""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things are remembered, in milliseconds."""

    session_ttl_ms: int = 86_400_000
    id_ttl_ms: int = 86_400_000
    cooldown_ms: int = 30_000


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
        self._terms = terms or Terms()
        self._library = library

    async def acquire(self, ask: Ask) -> Decision:
        """Choose a resource and take a lease on it. Raises `UnknownPool`,
        `NoResources`, `NoCapacity`, `OwnerLimited` or `OwnerGone`."""
        session = digest(ask.session_id) if ask.session_id else ""
        reply = await self._fcall(
            "rpx_acquire_v1",
            ask.gateway_id,
            ask.request_id,
            ask.attempt,
            ask.decision_id,
            ask.pool_id or "",
            session,
            1 if ask.account_bound else 0,
            ask.draw,
            _decision_head(ask),
            ask.lease,
            self._clock(),
            len(ask.bound),
            *ask.bound,
            *ask.tried,
        )
        status = reply[0]
        if status != b"ok":
            raise _refusal(reply)
        return Decision(
            resource_id=reply[1].decode(),
            reason=reply[2].decode(),
            version=reply[3].decode(),
            trial=reply[4] == 1,
        )

    def release(self, release: Release) -> Awaitable[Any]:
        """Report how an attempt ended; with an event, end the request.

        On a shared connection it is on its way when this returns, whether or
        not the caller lives to await it.
        """
        verdict, terms = release.verdict, self._terms
        pause = verdict.cooldown_ms
        return self._caller.call(
            "FCALL",
            "rpx_release_v1",
            2,
            keys.catalogue_version(),
            self._stream,
            release.gateway_id,
            release.request_id,
            release.resource_id,
            verdict.kind,
            verdict.cause,
            terms.cooldown_ms if pause is None else pause,
            "" if verdict.latency_ms is None else round(verdict.latency_ms, 3),
            self._clock(),
            digest(release.session_id) if release.session_id else "",
            terms.session_ttl_ms,
            terms.id_ttl_ms,
            release.request_id,
            release.event or b"",
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
        if not _holds(listed, self._library):
            await self._caller.call("FUNCTION", "LOAD", "REPLACE", self._library)

    async def publish(self, catalogue: Catalogue, event_id: str) -> bool:
        """Store the catalogue and rebuild what derives from it, with a registry
        event; False (and nothing done) when that version is there already."""
        event = RegistryEvent(
            created_at_ms=_now_ms(),
            version=catalogue.version,
            resources=tuple(resource.id for resource in catalogue.resources),
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

    async def heartbeat(self, gateway_id: str) -> str | None:
        """Say that a gateway lives; returns the catalogue's version."""
        version = await self._fcall("rpx_heartbeat_v1", gateway_id, self._clock())
        return None if version is None else str(version, "ascii")

    async def held(self, gateway_id: str) -> list[str]:
        """The requests whose leases a gateway holds."""
        found = await self._call("HKEYS", keys.gateway(gateway_id))
        return [request.decode() for request in found]

    async def abandon(self, gateway_id: str, request_ids: list[str]) -> int:
        """Drop leases the gateway no longer knows; returns how many."""
        return int(await self._fcall("rpx_abandon_v1", gateway_id, *request_ids))

    async def reap(self, silent_ms: int) -> int:
        """End the leases of gateways without a heartbeat for `silent_ms`; one
        `interrupted` request event each. Returns how many."""
        return int(await self._fcall("rpx_reap_v1", silent_ms, self._clock()))

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
        reply = await self._fcall("rpx_states_v1")
        if reply[0] != b"ok":
            raise NoCatalogue
        live = {row["id"]: row for row in msgspec.json.decode(reply[1])}
        return [_state(r, live.get(r.id, {})) for r in catalogue.resources]

    async def affinity_count(self) -> int:
        """Sessions bound at this moment."""
        return int(await self._call("ZCOUNT", keys.sessions(), _now_ms(), "+inf"))

    async def in_flight(self) -> int:
        """Leases held at this moment, over all gateways."""
        return sum(state.in_flight for state in await self.states())

    async def _fcall(self, name: str, *args: Any) -> Any:
        return await self._call(
            "FCALL", name, 2, keys.catalogue_version(), self._stream, *args
        )

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._caller.call(*command)
        except ResponseError as error:
            if "not found" in str(error).lower():
                raise NoCatalogue("The function library is not loaded.") from error
            # Full, loading, or a replica: it answers, but does not serve.
            raise RedisAway(f"Redis refuses: {str(error)[:80]}") from error


def _refusal(reply: list[bytes]) -> Exception:
    status = reply[0].decode()
    if status == "unknown_pool":
        return UnknownPool(tuple(sorted(pool.decode() for pool in reply[1:])))
    if status == "no_resources":
        return NoResources()
    if status == "owner_gone":
        return OwnerGone()
    if status == "owner_limited":
        return OwnerLimited(int(reply[1]))
    if status == "no_capacity":
        return NoCapacity(int(reply[1]))
    return NoCatalogue()


def _decision_head(ask: Ask) -> bytes:
    """The decision event as far as the gateway knows it, its brace left open:
    the function adds what it chose, and why."""
    head = msgspec.json.encode(
        {
            "request_id": ask.request_id,
            "attempt": ask.attempt,
            "session_id": ask.session_id,
            "pool_id": ask.pool_id,
        }
    )
    return head[:-1]


def _holds(listed: Any, source: str) -> bool:
    if not listed:
        return False
    entry = dict(zip(listed[0][::2], listed[0][1::2], strict=True))
    return bool(entry.get(b"library_code") == source.encode())


def _state(resource: Resource, live: dict[str, Any]) -> ResourceState:
    until = float(live.get("until", 0))
    now = _now_ms()
    state = HealthState(live.get("state", "unknown"))
    latency = live.get("latency_ms")
    return ResourceState(
        id=resource.id,
        name=resource.name,
        pool_id=resource.pool_id,
        account_id=resource.account_id,
        weight=resource.weight,
        health=state,
        cooldown_until=_iso(until) if state == "degraded" and until > now else None,
        in_flight=int(live.get("in_flight", 0)),
        requests=int(live.get("requests", 0)),
        errors=int(live.get("errors", 0)),
        last_latency_ms=None if latency is None else float(latency),
        last_error=live.get("last_error"),
    )


def _iso(unix_ms: float) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
