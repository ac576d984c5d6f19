"""Which events are alerts, and what a receiver is told of them. Pure.

An alert holds no secret: ids, names of states, amounts and the short cause of a health
event."""

from dataclasses import dataclass
from typing import Any

import msgspec

from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.events import (
    END_OF_TIME_MS,
    BudgetEvent,
    HealthEvent,
    StreamedEvent,
)
from libs.common.contracts.prices import NANOS
from libs.common.store.rows import iso_ms


@dataclass(frozen=True, slots=True)
class Alert:
    """`id`: of the event, so that it is the same however often it is sent."""

    id: str
    created_at_ms: int
    body: bytes


def alert_of(streamed: StreamedEvent) -> Alert | None:
    """The alert that an event is, if it is one."""
    event = streamed.event
    if isinstance(event, HealthEvent):
        if event.model is not None or event.after is not HealthState.UNHEALTHY:
            return None
        if event.before is HealthState.UNHEALTHY:
            return None
        about = {"resource_id": event.resource_id, "cause": event.cause[:200]}
        return _alert(streamed.id, event.created_at_ms, "resource.unhealthy", about)
    if isinstance(event, BudgetEvent):
        told = msgspec.to_builtins(event)
        kind = f"budget.{told.pop('state')}"
        return _alert(streamed.id, told.pop("created_at_ms"), kind, _budget(told))
    return None


def _budget(told: dict[str, Any]) -> dict[str, Any]:
    """Times in ISO 8601, and money in dollars."""
    about: dict[str, Any] = {}
    for name, value in told.items():
        if value is None:
            continue  # a limit that it does not have
        if name.endswith("_ms"):
            known = 0 < value < END_OF_TIME_MS  # a budget may have no end
            about[name.removesuffix("_ms")] = iso_ms(value) if known else None
        elif name in ("nanos", "limit_nanos"):
            about[name.replace("nanos", "usd")] = value / NANOS
        else:
            about[name] = value
    return about


def _alert(id_: str, at_ms: int, kind: str, about: dict[str, Any]) -> Alert:
    body = {"id": id_, "type": kind, "created_at": iso_ms(at_ms), "data": about}
    return Alert(id_, at_ms, msgspec.json.encode(body))
