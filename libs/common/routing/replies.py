"""Decodes replies of the routing functions. Pure, but for the clock that says whether
a cooldown is over."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import ResponseError

from libs.common.contracts.catalogue import HealthState, Resource, ResourceState
from libs.common.contracts.events import GatewayEvent
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.types import (
    EntryId,
    ForeignId,
    NoCapacity,
    NoResources,
    OwnerGone,
    OwnerLimited,
    Refusal,
    Reported,
    UnknownIds,
    UnknownPool,
)


def unusable(error: ResponseError) -> Exception:
    """The exception for an error reply."""
    if "not found" in str(error).lower():
        return NoCatalogue("The function library is not loaded.")
    # Full, loading, or a replica: it replies but cannot serve.
    return RedisAway(f"Redis refuses: {str(error)[:80]}")


def pairs_of(found: Any) -> dict[str, bytes]:
    """A hash: a dictionary from redis-py, a list from the shared connection."""
    if not isinstance(found, dict):
        found = dict(zip(found[::2], found[1::2], strict=True))
    return {k.decode(): v for k, v in found.items()}


def entry_id_of(text: bytes) -> EntryId:
    ms, _, number = text.partition(b"-")
    return int(ms), int(number)


def report_of(value: bytes, now_ms: int) -> Reported | None:
    """None if another version wrote it."""
    at, _, books = value.partition(b"|")
    try:
        event = GatewayEvent.model_validate_json(books)
        return Reported(int(at), now_ms - int(at), event)
    except ValueError:  # of pydantic, too
        return None


def refusal_of(reply: list[bytes]) -> Exception:
    status = reply[0].decode()
    if status == "unknown_pool":
        return UnknownPool(tuple(sorted(pool.decode() for pool in reply[1:])))
    if status in _WITH_NUMBER:
        return _WITH_NUMBER[status](int(reply[1]))
    return _PLAIN.get(status, NoCatalogue)()


_WITH_NUMBER: dict[str, Callable[[int], Refusal]] = {
    "foreign_id": lambda which: ForeignId(which, known=True),
    "unknown_id": lambda which: ForeignId(which, known=False),
    "look_up": UnknownIds,
    "owner_limited": OwnerLimited,
    "no_capacity": NoCapacity,
}
_PLAIN: dict[str, type[Exception]] = {
    "no_resources": NoResources,
    "owner_gone": OwnerGone,
}


def holds_library(listed: Any, source: str) -> bool:
    if not listed:
        return False
    entry = dict(zip(listed[0][::2], listed[0][1::2], strict=True))
    return bool(entry.get(b"library_code") == source.encode())


def state_of(resource: Resource, live: dict[str, Any]) -> ResourceState:
    """A resource with a model in cooldown is shown as cooling down."""
    state = HealthState(live.get("state", "unknown"))
    paused = live.get("paused") or ()
    ends = [pause["until_ms"] for pause in paused]
    if state is HealthState.DEGRADED:
        ends.append(float(live.get("until", 0)))
    elif paused and state is not HealthState.UNHEALTHY:
        state = HealthState.DEGRADED
    until = max(ends, default=0)
    shown = state is HealthState.DEGRADED and until > _now_ms()
    latency = live.get("latency_ms")
    return ResourceState(
        id=resource.id,
        name=resource.name,
        pool_id=resource.pool_id,
        account_id=resource.account_id,
        weight=resource.weight,
        health=state,
        cooldown_until=_iso(until) if shown else None,
        paused_models=tuple(sorted(pause["model"] for pause in paused)),
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
    return int(time.time() * 1000)
