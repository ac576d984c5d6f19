"""The routing policy: a table of cases, and its invariants."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.routing.circuit_breaker import NEVER, Cooldown
from libs.common.routing.policy import (
    WINDOW,
    Choice,
    Question,
    Standing,
    by_account,
    by_load,
    cause_of_leaving,
    unless_limited,
    unless_waiting,
)

NOW = 1_760_000_000_000
LATER = NOW + 5_000


def at(
    id_: str, weight: float = 1, in_flight: int = 0, ready_ms: float = 0
) -> Standing:
    return Standing(id_, "account", weight, in_flight, ready_ms)


def ask(draw: int = 0, tried: tuple[str, ...] = (), **paused: float) -> Question:
    cooldowns = {id_: Cooldown(until_ms=until) for id_, until in paused.items()}
    return Question(NOW, draw, tried, cooldowns or None)


@pytest.mark.parametrize(
    ("pool", "question", "expected"),
    [
        pytest.param([], ask(), (None, "no_capacity"), id="nobody there"),
        pytest.param(
            [at("a", in_flight=3), at("b", in_flight=1)], ask(), ("b", "why"),
            id="least in flight",
        ),
        pytest.param(
            [at("a", 4, 3), at("b", 1, 1)], ask(), ("a", "why"), id="per weight"
        ),
        pytest.param([at("a", 2), at("b")], ask(), ("a", "why"), id="idle: heavier"),
        pytest.param([at("a"), at("b")], ask(3), ("b", "why"), id="ties are drawn"),
        pytest.param(
            [at("a"), at("b", 1, 9)], ask(0, ("a",)), ("b", "why"), id="already tried"
        ),
        pytest.param(
            [at("a"), at("b", 1, 9)], ask(a=LATER), ("b", "why"), id="model paused"
        ),
        pytest.param(
            [at("a"), at("b", ready_ms=NOW)], ask(), ("b", "why"), id="half open first"
        ),
        pytest.param(
            [at("a"), at("b")], ask(b=NOW), ("b", "why"), id="half open for the model"
        ),
        pytest.param(
            [at("a", ready_ms=LATER), at("b", ready_ms=NOW + 1)], ask(),
            ("b", "panic"), id="panic: the one that is back first",
        ),
        pytest.param(
            [at("a", ready_ms=NEVER)], ask(), (None, "no_capacity"), id="all refused"
        ),
    ],
)  # fmt: skip
def test_by_load(
    pool: list[Standing], question: Question, expected: tuple[str | None, str]
) -> None:
    choice = by_load(pool, question, "why")
    assert (choice.resource_id, choice.reason) == expected


@pytest.mark.parametrize(
    ("siblings", "question", "expected"),
    [
        pytest.param([], ask(), (None, "owner_gone"), id="account is gone"),
        pytest.param(
            [at("owner", in_flight=9), at("b")], ask(), ("owner", "response_affinity"),
            id="the owner",
        ),
        pytest.param(
            [at("owner"), at("b")], ask(0, ("owner",)), ("b", "response_affinity"),
            id="a sibling",
        ),
        pytest.param(
            [at("owner", ready_ms=LATER)], ask(), ("owner", "response_affinity"),
            id="in spite of its condition",
        ),
        pytest.param(
            [at("owner", ready_ms=NEVER)], ask(0, ("owner",)), (None, "owner_gone"),
            id="refused just now",
        ),
        pytest.param(
            [at("owner")], ask(0, ("owner",)), (None, "no_capacity"),
            id="failed just now",
        ),
    ],
)  # fmt: skip
def test_by_account(
    siblings: list[Standing], question: Question, expected: tuple[str | None, str]
) -> None:
    choice = by_account(siblings, "owner", question)
    assert (choice.resource_id, choice.reason) == expected


def test_a_limited_owner_is_waited_for_and_a_failing_one_is_not() -> None:
    choice = by_account([at("owner", ready_ms=LATER)], "owner", ask())
    assert unless_limited(choice, "500").resource_id == "owner"
    limited = unless_limited(choice, "429 rate limited")
    assert limited == Choice(None, "owner_limited", until_ms=LATER)


@given(
    st.lists(
        st.builds(
            at,
            st.text("abcdefghij", min_size=1),
            st.floats(0.1, 100),
            st.integers(0, 1000),
            st.sampled_from([0, 0, 0, LATER, NEVER]),
        ),
        unique_by=lambda s: s.resource_id,
    ),
    st.integers(0, 10**6),
)
def test_the_choice_is_available_and_none_is_less_loaded(
    pool: list[Standing], draw: int
) -> None:
    choice = by_load(pool, ask(draw), "why")
    free = [standing for standing in pool if not standing.ready_ms]
    if not free:
        assert choice.reason in ("panic", "no_capacity")
        return
    chosen = next(s for s in pool if s.resource_id == choice.resource_id)
    assert chosen in free
    assert chosen.rank == min(s.rank for s in free)


@pytest.mark.parametrize(
    ("home", "question", "cause"),
    [
        pytest.param(None, ask(), "gone", id="not in the catalogue any more"),
        pytest.param(at("a", ready_ms=NEVER), ask(), "unhealthy", id="key refused"),
        pytest.param(at("a", ready_ms=LATER), ask(), "cooling_down", id="cooldowns"),
        pytest.param(at("a"), ask(a=LATER), "cooling_down", id="model paused"),
        pytest.param(at("a"), ask(b=LATER), "another_pool", id="could serve"),
    ],
)
def test_why_a_home_is_passed_over(
    home: Standing | None, question: Question, cause: str
) -> None:
    assert cause_of_leaving(home, question) == cause


def large(free: int, busy: int = 0) -> list[Standing]:
    """More resources than a choice looks at."""
    idle = [at(f"idle-{n:03}") for n in range(free)]
    return idle + [at(f"busy-{n:03}", in_flight=5) for n in range(busy)]


@given(st.integers(WINDOW, 60), st.integers(0, 10**6))
def test_in_a_large_pool_a_place_among_all_ties_is_drawn(free: int, draw: int) -> None:
    choice = by_load(large(free, busy=5), ask(draw), "why")
    assert choice.resource_id == f"idle-{draw % free:03}"


@given(st.integers(0, 10**6))
def test_in_a_large_pool_who_failed_is_not_drawn_again(draw: int) -> None:
    pool = large(30)
    first = by_load(pool, ask(draw), "why").resource_id
    assert first is not None
    second = by_load(pool, ask(draw, (first,)), "why").resource_id
    assert second != first
    # Not all tied resources were read; one of those that were is chosen.
    assert second in {s.resource_id for s in pool[:WINDOW]}


@given(st.integers(1, WINDOW - 1), st.integers(0, 10**6))
def test_busy_ones_of_a_large_pool_are_not_drawn(free: int, draw: int) -> None:
    choice = by_load(large(free, busy=30), ask(draw), "why")
    assert choice.resource_id == f"idle-{draw % free:03}"


# Requests in flight, and waiting ------------------------------------------------------


def bounded(most: int, held: str = "") -> Question:
    return Question(NOW, 0, most_in_flight=most, held=held)


@pytest.mark.parametrize(
    ("pool", "question", "expected"),
    [
        pytest.param(
            [at("a", 4, 2), at("b", 1, 1)], bounded(2), ("b", "why"),
            id="the heavier one is full",
        ),
        pytest.param(
            [at("a", 1, 2), at("b", 1, 3)], bounded(2), (None, "busy"), id="all full"
        ),
        pytest.param(
            [at("a", 1, 2)], bounded(2, held="a"), ("a", "why"), id="sent there again"
        ),
        pytest.param(
            [at("a", 1, 2), at("b", ready_ms=LATER)], bounded(2), (None, "busy"),
            id="no panic while one only is full",
        ),
        pytest.param(
            [at("a", 1, 2, NOW)], bounded(2), (None, "busy"), id="no trial beyond it"
        ),
        pytest.param(
            [at("a", 1, 2, LATER)], bounded(2), (None, "busy"), id="no panic beyond it"
        ),
    ],
)  # fmt: skip
def test_a_resource_has_its_most_requests_in_flight(
    pool: list[Standing], question: Question, expected: tuple[str | None, str]
) -> None:
    choice = by_load(pool, question, "why")
    assert (choice.resource_id, choice.reason) == expected


def test_state_of_an_account_waits_for_a_place_there() -> None:
    full, sibling = at("owner", 1, 2), at("b", 1, 1)
    assert by_account([full, sibling], "owner", bounded(2)).resource_id == "b"
    assert by_account([full], "owner", bounded(2)).reason == "busy"
    trial = by_account([full, at("b", ready_ms=NOW)], "owner", bounded(2))
    assert (trial.resource_id, trial.how) == ("b", "trial")


def test_the_cause_of_leaving_a_full_home() -> None:
    assert cause_of_leaving(at("home", 1, 2), bounded(2)) == "busy"


@pytest.mark.parametrize(
    ("cause", "wait_ms", "on_trial", "until_ms"),
    [
        ("429 rate limited", 5_000, False, LATER),
        ("429 rate limited", 5_000, True, NOW + 250),
        ("429 rate limited", 250, True, NOW + 250),
        ("429 rate limited", 4_999, False, None),
        ("429 rate limited", 0, False, None),
        ("500", 5_000, False, None),
    ],
)
def test_a_request_waits_for_a_limit_that_ends_soon(
    cause: str, wait_ms: int, *, on_trial: bool, until_ms: float | None
) -> None:
    panic = by_load([at("a", ready_ms=LATER)], ask(), "why")
    choice = unless_waiting(panic, cause, ask(), wait_ms, on_trial=on_trial)
    if until_ms is None:
        assert choice == panic
    else:
        assert choice == Choice(None, "busy", until_ms=until_ms)
