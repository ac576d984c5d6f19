"""Decodes replies of the routing functions. Pure, but for the clock that says whether
a cooldown is over."""

import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from redis.exceptions import ResponseError

from libs.common.contracts.catalogue import (
    HealthState,
    ModelLimits,
    Resource,
    ResourceState,
)
from libs.common.contracts.events import GatewayEvent
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.routing.budgets import LEFT
from libs.common.routing.types import (
    BudgetReserved,
    BudgetSpent,
    Busy,
    Decision,
    EntryId,
    ForeignId,
    Kept,
    KeyLimited,
    LimitsUnknown,
    NoCapacity,
    NoResources,
    Owner,
    OwnerGone,
    OwnerLimited,
    Queue,
    Queued,
    Refusal,
    Reported,
    SpendUnknown,
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
        event = msgspec.json.decode(books, type=GatewayEvent)
        return Reported(int(at), now_ms - int(at), event)
    except ValueError:  # of msgspec, too
        return None


def kept_of(owner: bytes, left_ms: int) -> Kept:
    """The owner of a session or an id. Versions before tenants stored none."""
    if not owner:
        return Kept()
    resource_id, account_id, tenant = f"{owner.decode()}|".split("|", 3)[:3]
    return Kept(Owner(resource_id, account_id, tenant), left_ms)


ALL: Final = "*"  # the pool of all resources


def queue_of(waits_for: str, requests: int, shares: int) -> Queue:
    kind, _, name = waits_for.partition(":")
    if kind == "account":
        return Queue(None, name, requests, shares)
    return Queue(None if name == ALL else name, None, requests, shares)


Chosen = tuple[str, str, str, bool]
"""Resource, reason, version of the catalogue, and whether it is a trial."""
MOST_CHOSEN: Final = 4096
_find: Final = bytes.find  # found sooner than a method by its name
# By what a reply says in front of the event: the same few recur.
_chosen: Final[dict[bytes, Chosen]] = {}


def decision_of(reply: Any, left: bytes = b"") -> Decision:
    """Decodes the reply of acquire. Raises what it says. `left`: see `Decision`."""
    if type(reply) is not bytes:
        if isinstance(reply, ResponseError):
            raise unusable(reply) from reply
        raise refusal_of(reply)
    at = _find(reply, b"{")
    told, event = (reply, b"") if at < 0 else (reply[:at], reply[at:])
    chosen = _chosen.get(told)
    if chosen is None:
        chosen, event = _read_choice(reply, told)
    resource_id, reason, version, trial = chosen
    return Decision(resource_id, reason, version, False, trial, event, left)


def _read_choice(reply: bytes, told: bytes) -> tuple[Chosen, bytes]:
    """What `_chosen` lacks, and the event. `told`: what is probably in front of it."""
    resource_id, reason, version, trial, event = reply.split(b"|", 4)
    chosen = resource_id.decode(), reason.decode(), version.decode(), trial == b"1"
    if len(told) + len(event) == len(reply):
        if len(_chosen) >= MOST_CHOSEN:
            _chosen.clear()
        _chosen[told] = chosen
    return chosen, event


def _behind(size: int) -> Callable[[Any], Decision]:
    """Reads the same reply behind so many bytes, which say what the key used."""

    def read(reply: Any) -> Decision:
        if type(reply) is bytes:
            return decision_of(reply[size:], reply)
        return decision_of(reply)

    return read


DECISION_BEHIND: Final = {each.size: _behind(each.size) for each in LEFT}


def refusal_of(reply: list[bytes]) -> Exception:
    status = reply[0].decode()
    if status == "unknown_pool":
        return UnknownPool(tuple(sorted(pool.decode() for pool in reply[1:])))
    if status == "queued":
        return Queued(reply[1].decode())
    if status in _OF_QUOTA:
        return _OF_QUOTA[status](*reply[1:])
    if status in _WITH_NUMBER:
        refusal = _WITH_NUMBER[status](int(reply[1]))
    else:
        refusal = _PLAIN.get(status, NoCatalogue)()
    if isinstance(refusal, Refusal) and len(reply) == 3:
        refusal.event = reply[2]
    return refusal


_WITH_NUMBER: dict[str, Callable[[int], Exception]] = {
    "foreign_id": lambda which: ForeignId(which, known=True),
    "unknown_id": lambda which: ForeignId(which, known=False),
    "look_up": UnknownIds,
    "owner_limited": OwnerLimited,
    "no_capacity": NoCapacity,
    "busy": Busy,
}
_OF_QUOTA: dict[str, Callable[..., Refusal]] = {
    "key_limit": lambda which, wait: KeyLimited(which.decode(), int(wait)),
    "spend_unknown": lambda subject: SpendUnknown(subject.decode()),
    "budget_reserved": lambda subject: BudgetReserved(subject.decode()),
    "budget_spent": lambda subject, which, left=0: BudgetSpent(
        subject.decode(), which.decode(), int(left)
    ),
}
_PLAIN: dict[str, type[Exception]] = {
    "limits_unknown": LimitsUnknown,
    "no_resources": NoResources,
    "owner_gone": OwnerGone,
}


LIBRARY_VERSION = "-- version "
_VERSION = re.compile(rf"^{LIBRARY_VERSION}([0-9.]+)", re.MULTILINE)


def library_of(listed: Any) -> dict[bytes, Any]:
    """What FUNCTION LIST says of the library; empty when it is not loaded."""
    return dict(zip(listed[0][::2], listed[0][1::2], strict=True)) if listed else {}


def code_of(listed: Any) -> str | None:
    """The source of the loaded library."""
    code = library_of(listed).get(b"library_code")
    return None if code is None else str(code, "utf-8")


def functions_of(listed: Any) -> frozenset[str]:
    """The names of the library's functions."""
    described = library_of(listed).get(b"functions", ())
    pairs = (dict(zip(each[::2], each[1::2], strict=True)) for each in described)
    return frozenset(str(each[b"name"], "utf-8") for each in pairs)


def is_older(code: str, other: str) -> bool:
    """Is the library `code` of an older version than `other`? Those of 0.1 do not name
    their version."""
    return _version_of(code) < _version_of(other)


def _version_of(code: str) -> tuple[int, ...]:
    found = _VERSION.search(code)
    return tuple(map(int, found[1].strip(".").split("."))) if found else ()


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
        limits=limits_of(live.get("limits") or ()),
        in_flight=int(live.get("in_flight", 0)),
        requests=int(live.get("requests", 0)),
        errors=int(live.get("errors", 0)),
        last_latency_ms=None if latency is None else float(latency),
        last_error=live.get("last_error"),
    )


def limits_of(rows: Iterable[dict[str, Any]]) -> tuple[ModelLimits, ...]:
    """Limits of an account, by model."""
    found = []
    for row in rows:
        resets = {
            name.removesuffix("_ms"): _iso(row[name])
            for name in row
            if name.endswith("_ms")
        }
        known = {n: v for n, v in row.items() if not n.endswith("_ms")}
        found.append(ModelLimits(**known, **resets))
    return tuple(sorted(found, key=lambda limits: limits.model))


def _iso(unix_ms: float) -> str:
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _now_ms() -> int:
    return int(time.time() * 1000)
