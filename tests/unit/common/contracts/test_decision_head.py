"""The beginning of a decision event, compared with the event."""

import msgspec
import pytest

from libs.common.contracts import decision_head
from libs.common.contracts.events import DecisionEvent

HEADS = [
    decision_head.DecisionHead,
    decision_head.LaterHead,
    decision_head.WaitedHead,
    decision_head.LaterWaitedHead,
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_its_members_are_those_of_the_event(head: type[msgspec.Struct]) -> None:
    assert set(head.__struct_fields__) <= set(DecisionEvent.__struct_fields__)


def test_only_what_the_function_adds_may_be_missing() -> None:
    later = decision_head.LaterWaitedHead
    missing = set(DecisionEvent.__struct_fields__) - set(later.__struct_fields__)
    assert missing == {"resource_id", "reason", "candidates", "degraded"}
