"""The routing state in memory, used while Redis is unreachable.
tests/integration/routing/test_policy_agrees.py compares it with the function
library."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.catalogue import HealthState
from libs.common.contracts.events import Cause, Reason
from libs.common.routing.types import (
    NoCapacity,
    NoResources,
    Owner,
    OwnerGone,
    OwnerLimited,
    Refusal,
    UnknownIds,
    UnknownPool,
    model_digest,
)
from libs.common.upstream_answers.verdicts import Verdict, VerdictKind
from tests.support.memory.reference import ReferenceRouting
from tests.support.values.asks import made_ask, made_release
from tests.support.values.catalogues import made_resource

NOW = 1_000_000.0
COOLDOWN = 30_000
ONE, TWO = made_resource("one"), made_resource("two")
LIMITED = Verdict(kind="limited", cause="429 rate limited")
FAULT = Verdict(kind="fault", cause="500")


def routing(*resources: Any) -> ReferenceRouting:
    made = ReferenceRouting(COOLDOWN)
    made.publish(resources or (ONE, TWO))
    return made


def went(local: ReferenceRouting, request_id: str = "r1", **given: Any) -> str | None:
    return local.acquire(made_ask(request_id, **given), NOW).resource_id


def states_of(local: ReferenceRouting) -> dict[str, str]:
    return {id_: str(health.state) for id_, health in local.health.items()}


# The choice -----------------------------------------------------------------


def test_requests_go_where_the_least_is_in_flight() -> None:
    local = routing()
    assert {went(local, "a"), went(local, "b")} == {"one", "two"}
    assert local.leases == {"one": {("gw", "a")}, "two": {("gw", "b")}}


def test_without_resources_there_is_no_choice() -> None:
    with pytest.raises(NoResources):
        went(ReferenceRouting())


def test_a_pool_that_is_not_there_is_told_with_those_that_are() -> None:
    local = routing(ONE, made_resource("x", pool_id="b"), made_resource("y"))
    assert went(local, pool_id="b") == "x"
    with pytest.raises(UnknownPool) as refusal:
        went(local, pool_id="c")
    assert refusal.value.pools == ("b", "main")


def test_choosing_has_no_effect() -> None:
    local = routing()
    local.choose(made_ask(), NOW)
    assert not any(local.leases.values())


def test_another_attempt_moves_the_lease() -> None:
    local = routing()
    first = went(local)
    second = went(local, attempt=2, tried=(first,), previous=first)
    assert {first, second} == {"one", "two"}
    assert sum(map(len, local.leases.values())) == 1


def test_when_all_failed_there_is_no_capacity() -> None:
    with pytest.raises(NoCapacity):
        went(routing(), tried=("one", "two"))


# Health ---------------------------------------------------------------------


def test_a_resource_that_is_rate_limited_cools_down_and_is_tried_again() -> None:
    local = routing()
    local.verdict("one", LIMITED, NOW)
    assert states_of(local)["one"] == "degraded"
    assert [went(local, f"r{n}") for n in range(3)] == ["two"] * 3
    later = NOW + COOLDOWN
    choice = local.acquire(made_ask("trial"), later)
    assert (choice.resource_id, choice.how) == ("one", "trial")
    # One trial at a time: until it is over, other requests go elsewhere.
    assert local.acquire(made_ask("next"), later).resource_id == "two"
    local.release(made_release("one", "trial"), later)
    assert states_of(local)["one"] == "healthy"


def test_an_upstreams_own_cooldown_counts() -> None:
    local = routing()
    local.verdict("one", Verdict(kind="limited", cooldown_ms=5), NOW)
    assert local.health["one"].ready_ms == NOW + 5


def test_all_cool_down_the_one_that_is_back_first_serves() -> None:
    local = routing()
    local.verdict("one", LIMITED, NOW)
    local.verdict("two", LIMITED, NOW - 1)
    choice = local.acquire(made_ask(), NOW)
    assert (choice.resource_id, choice.reason) == ("two", Reason.PANIC)


def test_refused_keys_serve_nobody() -> None:
    local = routing()
    for id_ in ("one", "two", "nobody"):
        local.verdict(id_, Verdict(kind="refused"), NOW)
    with pytest.raises(NoCapacity):
        went(local)


def test_a_rate_limit_concerns_the_requests_model_alone() -> None:
    local = routing(ONE)
    went(local)
    local.release(made_release("one", verdict=LIMITED, model="gpt-5"), NOW)
    assert local.health["one"].ready_ms == 0
    assert went(local, model=model_digest("gpt-4")) == "one"
    choice = local.acquire(made_ask("b", model=model_digest("gpt-5")), NOW)
    assert choice.reason == Reason.PANIC
    later = NOW + COOLDOWN
    trial = made_ask("c", model=model_digest("gpt-5"))
    assert local.acquire(trial, later).how == "trial"
    local.release(made_release("one", "c", model="gpt-5"), later)
    assert local.acquire(made_ask("d", model=trial.model), later).how == "free"


def test_new_keys_and_addresses_begin_with_a_clean_record() -> None:
    local = routing(ONE, TWO, made_resource("three"))
    for id_ in ("one", "two", "three"):
        local.verdict(id_, Verdict(kind="refused"), NOW)
    moved = made_resource("two", base_url="https://elsewhere.example/v1")
    local.publish((ONE, moved, made_resource("three", credential="env:OTHER")))
    assert states_of(local) == {
        "one": "unhealthy",
        "two": "unknown",
        "three": "unknown",
    }


def test_a_catalogue_that_lost_a_resource() -> None:
    local = routing()
    went(local, "a")
    local.publish((TWO,))
    assert {went(local, f"r{n}") for n in range(3)} == {"two"}
    local.publish((ONE, TWO))
    assert local.health["one"].state is HealthState.UNKNOWN


def test_forgetting_health_begins_anew() -> None:
    local = routing(ONE)
    local.release(made_release("one", verdict=LIMITED, model="gpt-5"), NOW)
    local.verdict("one", LIMITED, NOW)
    local.forget_health()
    assert local.acquire(made_ask(model=model_digest("gpt-5")), NOW).how == "free"


# Affinity -------------------------------------------------------------------


def test_a_session_stays_at_home() -> None:
    local = routing()
    home = went(local, "a", session="s")
    assert home is not None
    local.release(made_release(home, "a", session="s"), NOW)
    for n in range(4):
        choice = local.acquire(made_ask(f"r{n}", session="s"), NOW)
        assert (choice.resource_id, choice.reason) == (home, Reason.SESSION_AFFINITY)


@pytest.mark.parametrize(
    ("kind", "cause"),
    [("limited", Cause.COOLING_DOWN), ("refused", Cause.UNHEALTHY)],
)
def test_a_session_whose_home_cannot_serve_moves(
    kind: VerdictKind, cause: Cause
) -> None:
    local = routing()
    local.release(made_release("one", session="s"), NOW)
    local.verdict("one", Verdict(kind=kind), NOW)
    choice = local.acquire(made_ask(session="s"), NOW)
    assert (choice.resource_id, choice.reason) == ("two", Reason.SESSION_FAILOVER)
    assert choice.cause == cause
    assert local.choose(made_ask(session="s", attempt=2), NOW).cause is None


def test_a_session_whose_home_is_gone() -> None:
    local = routing()
    local.release(made_release("one", session="s"), NOW)
    local.publish((TWO,))
    assert local.choose(made_ask(session="s"), NOW).cause == Cause.GONE


def test_only_a_success_makes_a_home_or_binds_ids() -> None:
    local = routing()
    failed = made_release("one", session="s", learned=("id",), verdict=FAULT)
    local.release(failed, NOW)
    assert "s" not in local.sessions
    # A failed answer has still minted its ids.
    assert local.ids["id"] == Owner("one", "one")


def test_an_id_stays_with_its_tenant_and_a_session_has_its_last_owner() -> None:
    local = routing()
    for resource_id, tenant in (("one", "team:red"), ("two", "team:blue")):
        learned = made_release(resource_id, tenant=tenant, session="s", learned=("id",))
        local.release(learned, NOW)
    assert local.ids["id"] == Owner("one", "one", "team:red")
    assert local.sessions["s"] == Owner("two", "two", "team:blue")


def test_a_request_goes_to_the_account_that_minted_its_ids() -> None:
    sibling = made_resource("sibling", account_id="one")
    local = routing(ONE, TWO, sibling)
    local.release(made_release("one", learned=("id",)), NOW)
    choice = local.acquire(made_ask(bound=("unknown", "id")), NOW)
    assert (choice.resource_id, choice.reason) == ("one", Reason.RESPONSE_AFFINITY)
    choice = local.choose(made_ask("b", bound=("id",), tried=("one",)), NOW)
    assert choice.resource_id == "sibling"


def test_state_whose_account_is_gone_is_nowhere_else() -> None:
    local = routing()
    local.remember({}, {"id": Owner("old", "old-account")})
    with pytest.raises(OwnerGone):
        went(local, bound=("id",))


def test_an_owner_that_is_rate_limited_is_waited_for() -> None:
    local = routing()
    local.release(made_release("one", learned=("id",)), NOW)
    local.verdict("one", LIMITED, NOW)
    with pytest.raises(OwnerLimited) as refusal:
        went(local, bound=("id",))
    assert refusal.value.retry_after_ms == COOLDOWN


def test_an_owner_whose_model_is_rate_limited_is_waited_for() -> None:
    local = routing()
    learned = made_release("one", learned=("id",))
    local.release(learned, NOW)
    local.release(made_release("one", verdict=LIMITED, model="gpt-5"), NOW)
    with pytest.raises(OwnerLimited):
        went(local, bound=("id",), model=model_digest("gpt-5"))


def test_an_owner_that_fails_is_tried_anyway() -> None:
    local = routing()
    local.release(made_release("one", learned=("id",)), NOW)
    for _ in range(3):
        local.verdict("one", FAULT, NOW)
    assert went(local, bound=("id",)) == "one"


@pytest.mark.parametrize(
    "asked",
    [
        {"bound": ("id",)},
        {"account_bound": True, "session": "s"},
    ],
)
def test_ids_that_nobody_knows_are_looked_for_once(asked: dict[str, Any]) -> None:
    local = routing()
    with pytest.raises(UnknownIds):
        went(local, **asked)
    assert went(local, resolved=True, **asked) is not None
    local.remember({"s": None}, {"id": None})  # nobody: that is known, too
    assert went(local, **asked) is not None


def test_encrypted_content_goes_by_its_session() -> None:
    local = routing()
    local.release(made_release("one", session="s"), NOW)
    choice = local.choose(made_ask(session="s", account_bound=True), NOW)
    assert (choice.resource_id, choice.reason) == ("one", Reason.RESPONSE_AFFINITY)


def test_a_provider_is_asked_only_for_what_its_own_accounts_hold() -> None:
    acme = made_resource("acme", account_id="one", provider_id="acme")
    local = routing(ONE, acme)
    local.release(made_release("one", learned=("id",)), NOW)
    # Pools do not restrict requests that only one account can serve; providers do.
    assert went(local, bound=("id",), pool_id="main") == "one"
    assert went(local, bound=("id",), pool_id="@acme") == "acme"


def test_a_replayed_request_says_so() -> None:
    choice = routing().choose(made_ask(replayed=True, resolved=True), NOW)
    assert choice.reason == Reason.REPLAYED


def test_what_is_remembered_is_not_replaced_by_what_is_told_later() -> None:
    local = routing()
    local.remember({"s": Owner("one", "one")}, {"id": None})
    local.remember({"s": Owner("two", "two")}, {"id": Owner("two", "two")})
    assert local.sessions["s"] == Owner("one", "one")
    assert local.ids["id"] == Owner("two", "two")


def test_of_what_is_remembered_the_oldest_goes() -> None:
    local = ReferenceRouting(most_owners=2)
    local.publish((ONE,))
    for name in ("a", "b", "a", "c"):
        local.release(made_release("one", session=name), NOW)
    assert list(local.sessions) == ["a", "c"]


def test_an_attempt_that_is_not_the_last_makes_no_home() -> None:
    local = routing()
    local.release(made_release("one", session="s", learned=("i",), event=None), NOW)
    assert (local.sessions, local.ids) == ({}, {})


# The end of a request -------------------------------------------------------


def test_the_last_release_ends_the_lease_and_another_does_not() -> None:
    local = routing(ONE)
    went(local)
    local.release(made_release("one", event=None), NOW)
    assert local.leases["one"] == {("gw", "r1")}
    local.release(made_release("one"), NOW)
    assert local.leases["one"] == set()


def test_without_a_verdict_nothing_is_judged() -> None:
    local = routing(ONE)
    went(local)
    local.release(made_release("one", verdict=None, session="s"), NOW)
    assert local.health["one"].state is HealthState.UNKNOWN
    assert local.sessions == {}


def test_a_request_that_left_before_it_was_known_where_it_went() -> None:
    local = routing(ONE)
    local.verdict("one", LIMITED, NOW)
    later = NOW + COOLDOWN
    assert local.acquire(made_ask("trial"), later).how == "trial"
    local.release(made_release("", "trial", verdict=None), later)
    assert local.leases["one"] == set()
    # No trial has taken place, so the next request is one.
    assert local.acquire(made_ask("next"), later).how == "trial"


def test_releasing_twice_changes_nothing() -> None:
    local = routing(ONE)
    went(local, "a")
    went(local, "b")
    for _ in range(2):
        local.release(made_release("one", "a"), NOW)
    assert local.leases["one"] == {("gw", "b")}


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.booleans(),
            st.sampled_from(["ok", "fault", "limited", "refused", "neutral"]),
        ),
        max_size=40,
    )
)
def test_a_request_holds_one_lease_until_it_is_over(
    steps: list[tuple[str, bool, VerdictKind]],
) -> None:
    local = routing()
    held: dict[str, str | None] = {}
    for request, asks, kind in steps:
        if asks:
            try:
                choice = local.acquire(
                    made_ask(request, previous=held.get(request, "")), NOW
                )
            except Refusal:
                continue
            held[request] = choice.resource_id
        elif request in held:
            verdict = Verdict(kind=kind)
            where = held.pop(request)
            local.release(made_release(where or "", request, verdict=verdict), NOW)
    leases = {r: id_ for id_, fields in local.leases.items() for _, r in fields}
    assert leases == held
    assert sum(map(len, local.leases.values())) == len(held)
