"""Events and entries between versions: readers of an older or newer version's data."""

import pytest
from pydantic import ValidationError

from libs.common.contracts.catalogue import Resource
from libs.common.contracts.events import (
    EVENTS,
    DecisionEvent,
    GatewayEvent,
    StreamedEvent,
    StreamedPayload,
)
from tests.support.values.catalogues import made_resource
from tests.support.values.telemetry import (
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
}


@pytest.mark.parametrize("kind", EVENTS)
def test_an_event_survives_the_journey(kind: str) -> None:
    event = MADE[kind]
    assert EVENTS[kind].model_validate_json(event.model_dump_json()) == event


@pytest.mark.parametrize("kind", EVENTS)
def test_a_field_that_nobody_knows_makes_poison_of_an_event(kind: str) -> None:
    unknown = MADE[kind].model_dump() | {"surprise": 1}
    with pytest.raises(ValidationError, match="surprise"):
        EVENTS[kind].model_validate(unknown)


@pytest.mark.parametrize("weight", [0, -1])
def test_a_weight_is_above_zero(weight: float) -> None:
    with pytest.raises(ValidationError):
        Resource.model_validate(made_resource().model_dump() | {"weight": weight})


def test_events_cannot_be_changed() -> None:
    event = decision_event()
    with pytest.raises(ValidationError, match="frozen"):
        event.attempt = 2  # type: ignore[misc]


def test_a_streamed_event_is_stored_as_it_came() -> None:
    event = gateway_event()
    data = event.model_dump_json(indent=1).encode()
    came = StreamedEvent("1-0", "g", "gateway", event, data)
    assert came.json == data
    assert GatewayEvent.model_validate_json(streamed(event).json) == event
    assert came == StreamedEvent("1-0", "g", "gateway", event)  # the same event


def test_a_payload_has_its_bodies_beside_it() -> None:
    assert StreamedPayload.__dataclass_fields__["bodies"].default_factory is dict
    assert "payload" not in EVENTS


def test_a_decision_of_before_causes_is_read() -> None:
    old = decision_event().model_dump(exclude={"cause"})
    assert DecisionEvent.model_validate(old).cause is None
