"""What refusals carry."""

from libs.common.routing.types import (
    NoCapacity,
    NoResources,
    OwnerGone,
    OwnerLimited,
    Refusal,
    UnknownIds,
    UnknownPool,
)


def test_refusals_say_what_is_needed_to_answer_them() -> None:
    assert UnknownIds(1200).age_ms == 1200
    assert UnknownPool(("a", "b")).pools == ("a", "b")
    assert NoCapacity(30).retry_after_ms == 30
    assert OwnerLimited(40).retry_after_ms == 40
    for kind in (NoResources(), OwnerGone(), NoCapacity(0)):
        assert isinstance(kind, Refusal)
        assert kind.event == b""
