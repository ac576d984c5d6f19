"""Which target of an alias is tried when."""

from libs.common.routing.aliases import AliasTarget, provider_pool
from libs.common.routing.types import (
    ForeignId,
    NoCapacity,
    OwnerGone,
    OwnerLimited,
    Refusal,
    UnknownPool,
)
from services.gateway.routing.target_order import TargetOrder


def target(provider: str) -> AliasTarget:
    """With two resources."""
    ids = frozenset({f"{provider}-1", f"{provider}-2"})
    pools = frozenset({None})
    return AliasTarget(
        "fast", provider, "m", provider_pool(provider), pools, resource_ids=ids
    )


A, B, C = target("a"), target("b"), target("c")


def test_each_is_asked_and_then_each_in_spite_of_its_state() -> None:
    order = TargetOrder((A, B))
    asked = []
    while True:
        asked.append((order.current.provider_id, order.last_resort))
        if not order.refused(NoCapacity(0)):
            break
    assert asked == [("a", False), ("b", False), ("a", True), ("b", True)]
    # Another run begins anew.
    assert (order.current, order.last_resort) == (A, False)


def test_state_that_nobody_has_is_not_sought_twice() -> None:
    order = TargetOrder((A, B))
    assert order.refused(OwnerGone())
    assert not order.refused(OwnerGone())
    assert isinstance(order.told(OwnerGone()), OwnerGone)


def test_a_limited_account_is_waited_for() -> None:
    order = TargetOrder((A, B))
    limited = OwnerLimited(1)
    assert not order.refused(limited)
    assert order.told(limited) is limited
    assert not order.refused(ForeignId(0, known=True))


def test_the_client_is_told_of_the_soonest_moment() -> None:
    order = TargetOrder((A, B, C))
    rounds: list[Refusal] = [UnknownPool(()), NoCapacity(0), NoCapacity(2000)]
    for refusal in (*rounds, OwnerGone(), NoCapacity(1000), NoCapacity(3000)):
        order.refused(refusal)
    told = order.told(NoCapacity(3000))
    assert isinstance(told, NoCapacity)
    assert told.retry_after_ms == 1000
    # It is told once.
    assert isinstance(order.told(OwnerGone()), OwnerGone)


def test_a_provider_is_left_when_its_last_resource_failed() -> None:
    order = TargetOrder((A, B))
    assert not order.failed(("a-1",), 3)
    assert order.failed(("a-1", "a-2"), 3)
    assert order.current is B
    assert not order.failed(("a-1", "a-2", "b-1", "b-2"), 3)


def test_each_further_target_keeps_an_attempt() -> None:
    order = TargetOrder((A, B, C))
    assert not order.failed(("a-1",), 3)
    assert order.failed(("a-1",), 2)
    assert order.current is B
    assert order.failed(("a-1", "b-1"), 1)
    assert not order.failed(("a-1", "b-1", "c-1"), 0)


def test_without_an_attempt_left_the_row_names_the_target_that_failed() -> None:
    order = TargetOrder((A, B))
    assert not order.failed(("a-1", "a-2"), 0)
    assert order.current is A


def test_a_provider_may_come_first() -> None:
    order = TargetOrder((A, B, C))
    order.refused(NoCapacity(0))
    order.prefer("c")
    assert (order.current, order.targets) == (C, (C, A, B))
    assert order.target_of("b-2") is B
    assert order.target_of(None) is C
