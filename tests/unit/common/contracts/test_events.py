"""Events and entries between versions: readers of an older or newer version's data."""

import json

import msgspec
import pytest
from pydantic import ValidationError

from libs.common.contracts.catalogue import Resource
from libs.common.contracts.events import (
    EVENTS,
    DecisionEvent,
    GatewayEvent,
    StreamedEvent,
    encode,
)
from libs.common.contracts.payloads import Note, Payload
from tests.support.values.catalogues import made_resource
from tests.support.values.telemetry import (
    budget_event,
    decision_event,
    gateway_event,
    health_event,
    registry_event,
    request_event,
    streamed,
)

MADE = {
    "decision": decision_event(),
    "request": request_event(minted=("resp_1",)),
    "health": health_event(),
    "registry": registry_event(),
    "gateway": gateway_event(),
    "budget": budget_event(),
}


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_survives_the_journey(kind: str) -> None:
    event = MADE[kind]
    assert msgspec.json.decode(encode(event), type=EVENTS[kind]) == event


@pytest.mark.parametrize("kind", EVENTS)
def test_a_field_that_nobody_knows_makes_poison_of_an_event(kind: str) -> None:
    unknown = msgspec.to_builtins(MADE[kind]) | {"surprise": 1}
    with pytest.raises(msgspec.ValidationError, match="surprise"):
        msgspec.convert(unknown, EVENTS[kind])


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_is_above_zero(weight: float) -> None:
    with pytest.raises(ValidationError):
        Resource.model_validate(made_resource().model_dump() | {"weight": weight})


def test_events_cannot_be_changed() -> None:
    event = decision_event()
    with pytest.raises(AttributeError, match="immutable"):
        event.attempt = 2  # type: ignore[misc]


def test_a_streamed_event_is_stored_as_it_came() -> None:
    event = gateway_event()
    data = encode(event) + b" "
    came = StreamedEvent("1-0", "g", "gateway", event, data)
    assert came.json == data
    assert msgspec.json.decode(streamed(event).json, type=GatewayEvent) == event


def test_a_payload_is_told_of_without_its_bodies() -> None:
    payload = Payload("r", 1, Note(3), request_body=b"SECRET")
    told = json.loads(StreamedEvent("1-0", "r", "payload", payload).json)
    assert told["request"] == {"original_bytes": 3}
    assert "SECRET" not in str(told)
    assert "payload" not in EVENTS


def test_a_decision_of_before_causes_is_read() -> None:
    old = msgspec.to_builtins(decision_event())
    del old["cause"]
    assert msgspec.convert(old, DecisionEvent).cause is None
