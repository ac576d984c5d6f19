"""Events as gateways write them, with default values."""

from collections.abc import Sequence
from typing import Any, cast

from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.events import (
    BudgetEvent,
    Candidate,
    DecisionEvent,
    Event,
    GatewayEvent,
    HealthEvent,
    Kind,
    Outcome,
    RegistryEvent,
    RequestEvent,
    StreamedEvent,
)

T0_MS = 1_700_000_000_123  # 2023-11-14T22:13:20.123Z


def request_event(id_: str = "req-1", **given: Any) -> RequestEvent:
    values: dict[str, Any] = {
        "id": id_,
        "created_at_ms": T0_MS,
        "completed_at_ms": T0_MS + 900,
        "method": "POST",
        "path": "/v1/responses",
        "outcome": Outcome.COMPLETED,
        "attempts": 1,
    }
    return RequestEvent(**{**values, **given})


def decision_event(request_id: str = "req-1", **given: Any) -> DecisionEvent:
    values: dict[str, Any] = {
        "request_id": request_id,
        "attempt": 1,
        "created_at_ms": T0_MS,
        "resource_id": "openai-1",
        "reason": "weighted_least_connections",
        "candidates": (
            Candidate(resource="openai-1", score=0.5, in_flight=0, weight=2),
            Candidate(resource="openai-2", refused="cooling down"),
        ),
    }
    return DecisionEvent(**{**values, **given})


def budget_event(**given: Any) -> BudgetEvent:
    values: dict[str, Any] = {
        "created_at_ms": T0_MS,
        "subject": "key:key_1",
        "state": "soft",
        "window_start_ms": T0_MS - 1000,
        "window_end_ms": T0_MS + 1000,
        "tokens": 8,
        "nanos": 0,
        "limit_tokens": 10,
    }
    return BudgetEvent(**{**values, **given})


def health_event(**given: Any) -> HealthEvent:
    values: dict[str, Any] = {
        "created_at_ms": T0_MS,
        "resource_id": "openai-1",
        "before": HealthState.UNKNOWN,
        "after": HealthState.HEALTHY,
        "cause": "checked",
    }
    return HealthEvent(**{**values, **given})


def registry_event(**given: Any) -> RegistryEvent:
    values = {"created_at_ms": T0_MS, "version": "v1", "resources": ("openai-1",)}
    return RegistryEvent(**{**values, **given})


def gateway_event(gateway_id: str = "gw-1", **given: Any) -> GatewayEvent:
    values: dict[str, Any] = {
        "created_at_ms": T0_MS,
        "gateway_id": gateway_id,
        "started_at_ms": T0_MS - 60_000,
        "accepted": 2,
        "ended": 2,
        "held": 0,
    }
    return GatewayEvent(**{**values, **given})


def streamed(event: Event, id_: str | None = None) -> StreamedEvent:
    kind = type(event).__name__.removesuffix("Event").lower()
    own = event.id if isinstance(event, RequestEvent) else f"{kind}-1"
    return StreamedEvent(
        entry_id=f"{T0_MS}-0",
        id=id_ or own,
        kind=cast(Kind, kind),  # the contracts' names are the kinds
        event=event,
    )


def stored_request(id_: str = "req-1", **given: Any) -> StreamedEvent:
    """A request event of the stream."""
    return streamed(request_event(id_, **given))


def as_redis_gives(call: Sequence[str | bytes | int]) -> dict[bytes, bytes]:
    """An entry's fields as Redis returns them, from the arguments that wrote it."""
    wire = [part if isinstance(part, bytes) else str(part).encode() for part in call]
    return dict(zip(wire[::2], wire[1::2], strict=True))
