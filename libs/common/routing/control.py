"""Routing functions off the hot path: those of the router and the health service, and
what all services read. Raises as `functions.py` says."""

import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from pydantic import ValidationError
from redis.exceptions import ResponseError

from libs.common.contracts.catalogue import Catalogue, HealthState, ResourceState
from libs.common.contracts.events import RegistryEvent
from libs.common.contracts.verdicts import Verdict
from libs.common.errors import NoCatalogue
from libs.common.redis import keys
from libs.common.redis.client import Caller, Clock, servers_clock
from libs.common.routing.replies import (
    holds_library,
    pairs_of,
    report_of,
    state_of,
    unusable,
)
from libs.common.routing.types import Owner, Reported


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things are remembered, in milliseconds."""

    session_ttl_ms: int = 86_400_000
    id_ttl_ms: int = 86_400_000
    cooldown_ms: int = 30_000
    # Of ids that SQL does not know. Short, because SQL may learn an id that another
    # gateway relayed a moment ago.
    unknown_ttl_ms: int = 60_000


Owners = Mapping[str, Owner | None]


class ControlFunctions:
    """The connection to the function library, and its calls that no request makes."""

    def __init__(
        self,
        caller: Caller,
        stream: str,
        terms: Terms | None = None,
        library: str | None = None,
        clock: Clock = servers_clock,
    ) -> None:
        """`library`: the source of the function library; for the router only. `clock`
        returns Unix ms, or '' for the server's clock."""
        self._clock = clock
        self._caller = caller
        self._stream = stream
        self._version_key = keys.catalogue_version()
        self._terms = terms or Terms()
        self._library = library

    async def load_library(self) -> None:
        """Load the function library unless Redis has this version. Router only."""
        if self._library is None:
            raise AssertionError("only the router holds the library")
        listed = await self._caller.call(
            "FUNCTION", "LIST", "LIBRARYNAME", "rpx", "WITHCODE"
        )
        if not holds_library(listed, self._library):
            await self._caller.call("FUNCTION", "LOAD", "REPLACE", self._library)

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
            "rpx_publish_v1",
            catalogue.version,
            catalogue.model_dump_json(),
            event_id,
            event.model_dump_json(),
        )
        return bool(done)

    async def catalogue(self) -> Catalogue:
        """The published catalogue. Raises `NoCatalogue`."""
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

    async def reports(self) -> dict[str, Reported]:
        """The last ledger report of each gateway that Redis knows."""
        seconds, micros = await self._call("TIME")
        now = int(seconds) * 1000 + int(micros) // 1000
        found = pairs_of(await self._call("HGETALL", keys.reports()))
        reported = {k: report_of(v, now) for k, v in found.items()}
        return {k: r for k, r in reported.items() if r is not None}

    async def learned_accounts(self) -> dict[str, str]:
        """Resource -> account, as upstreams named them."""
        found = pairs_of(await self._call("HGETALL", keys.accounts()))
        return {k: v.decode() for k, v in found.items()}

    async def reap(self, silent_ms: int, *, strays: bool = False) -> int:
        """End the leases of gateways without a heartbeat for `silent_ms`, and emit an
        `interrupted` request event for each. Returns how many. `strays`: also look for
        leases of gateways that never sent a heartbeat."""
        look = 1 if strays else 0
        return int(await self._fcall("rpx_reap_v1", silent_ms, self._clock(), look))

    async def verdict(self, resource_id: str, verdict: Verdict) -> HealthState:
        """Apply the verdict of a health check; returns the resulting state."""
        cooldown = verdict.cooldown_ms
        reply = await self._fcall(
            "rpx_verdict_v1",
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
        reply = await self._fcall("rpx_states_v1", self._clock())
        if reply[0] != b"ok":
            raise NoCatalogue
        live = {row["id"]: row for row in msgspec.json.decode(reply[1])}
        return [state_of(r, live.get(r.id, {})) for r in catalogue.resources]

    async def affinity_count(self) -> int:
        """The number of sessions bound to a resource."""
        return int(await self._call("ZCOUNT", keys.sessions(), now_ms(), "+inf"))

    async def in_flight(self) -> int:
        """The number of leases of all gateways."""
        return sum(state.in_flight for state in await self.states())

    def _fcall(self, name: str, *args: Any) -> Coroutine[Any, Any, Any]:
        return self._call("FCALL", name, 2, self._version_key, self._stream, *args)

    async def _call(self, *command: Any) -> Any:
        try:
            return await self._caller.call(*command)
        except ResponseError as error:
            raise unusable(error) from error


def now_ms() -> int:
    return int(time.time() * 1000)
