"""Which events are alerts."""

import json
from typing import Any

import pytest

from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.events import StreamedEvent
from services.ingest.alerts.alert import alert_of
from tests.support.values.telemetry import (
    T0_MS,
    budget_event,
    health_event,
    request_event,
    streamed,
)

UNHEALTHY, HEALTHY = HealthState.UNHEALTHY, HealthState.HEALTHY


def told(event: StreamedEvent) -> dict[str, Any] | None:
    alert = alert_of(event)
    return None if alert is None else json.loads(alert.body)


def test_a_resource_becomes_unhealthy() -> None:
    event = health_event(
        created_at_ms=T0_MS, resource_id="r", before=HEALTHY, after=UNHEALTHY,
        cause="401" * 100,
    )  # fmt: skip
    body = told(streamed(event, "e1"))
    assert body is not None
    assert body.pop("created_at").endswith("Z")
    assert body == {
        "id": "e1",
        "type": "resource.unhealthy",
        "data": {"resource_id": "r", "cause": ("401" * 100)[:200]},
    }


@pytest.mark.parametrize(
    "event",
    [
        health_event(before=UNHEALTHY, after=UNHEALTHY),
        health_event(before=UNHEALTHY, after=HEALTHY),
        health_event(before=HEALTHY, after=HealthState.DEGRADED),
        health_event(before=HEALTHY, after=UNHEALTHY, model="m"),
        request_event(),
    ],
)
def test_what_is_no_alert(event: Any) -> None:
    assert told(streamed(event)) is None


@pytest.mark.parametrize("state", ["soft", "exhausted"])
def test_a_budget(state: str) -> None:
    event = budget_event(
        created_at_ms=0,
        state=state,
        window_start_ms=0,  # from the beginning
        window_end_ms=86_400_000,
        tokens=7,
        nanos=1_500_000_000,
        limit_tokens=None,
        limit_nanos=2_000_000_000,
    )
    assert told(streamed(event, "e2")) == {
        "id": "e2",
        "type": f"budget.{state}",
        "created_at": "1970-01-01T00:00:00.000Z",
        "data": {
            "subject": "key:key_1",
            "window_start": None,
            "window_end": "1970-01-02T00:00:00.000Z",
            "tokens": 7,
            "usd": 1.5,
            "limit_usd": 2.0,
        },
    }
