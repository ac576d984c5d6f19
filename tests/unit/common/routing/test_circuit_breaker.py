"""The circuit breaker: a table of histories, and invariants after any history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.catalogue import HealthState
from libs.common.routing.circuit_breaker import (
    COOLDOWN_CAP,
    FAULTS_IN_A_ROW,
    NEVER,
    PROBE,
    Cooldown,
    Health,
    judge,
    judge_model,
)
from libs.common.upstream_answers.verdicts import Verdict, VerdictKind

NOW = 1_000_000.0
COOLDOWN = 1_000.0


def say(kind: VerdictKind) -> Verdict:
    return Verdict(kind=kind, cause=f"because {kind}")


def told(health: Health, kind: VerdictKind, by: str = "r", at: float = NOW) -> Health:
    judge(health, say(kind), COOLDOWN, by, at)
    return health


def after(*kinds: VerdictKind) -> Health:
    """The state after these verdicts, one after the other at the same time."""
    health = Health()
    for kind in kinds:
        told(health, kind)
    return health


@pytest.mark.parametrize(
    ("kinds", "state", "ready_ms"),
    [
        pytest.param((), HealthState.UNKNOWN, 0, id="nothing told"),
        pytest.param(("ok",), HealthState.HEALTHY, 0, id="works"),
        pytest.param(("fault",), HealthState.UNKNOWN, 0, id="one fault"),
        pytest.param(("fault", "fault"), HealthState.UNKNOWN, 0, id="two faults"),
        pytest.param(
            ("fault",) * 3, HealthState.DEGRADED, NOW + COOLDOWN, id="three faults"
        ),
        pytest.param(
            ("fault", "fault", "ok", "fault", "fault"), HealthState.HEALTHY, 0,
            id="a success between faults",
        ),
        pytest.param(
            ("fault", "fault", "neutral", "fault"), HealthState.DEGRADED,
            NOW + COOLDOWN, id="what says nothing does not count",
        ),
        pytest.param(
            ("limited",), HealthState.DEGRADED, NOW + COOLDOWN, id="rate limited"
        ),
        pytest.param(("refused",), HealthState.UNHEALTHY, NEVER, id="key refused"),
        pytest.param(("exhausted",), HealthState.UNHEALTHY, NEVER, id="no money"),
        pytest.param(
            ("refused", "ok"), HealthState.UNHEALTHY, NEVER,
            id="a success that was under way",
        ),
        pytest.param(
            ("refused", "limited"), HealthState.UNHEALTHY, NEVER,
            id="rate limited after the refusal",
        ),
        pytest.param(
            ("refused", "fault"), HealthState.UNHEALTHY, NEVER,
            id="a fault after the refusal",
        ),
        pytest.param(
            ("limited", "ok"), HealthState.DEGRADED, NOW + COOLDOWN,
            id="a success that was under way when the cooldown began",
        ),
    ],
)  # fmt: skip
def test_what_verdicts_make_of_a_resource(
    kinds: tuple[VerdictKind, ...], state: HealthState, ready_ms: float
) -> None:
    health = after(*kinds)
    assert (health.state, health.ready_ms) == (state, ready_ms)


def test_the_cause_is_that_of_the_verdict_and_goes_with_a_success() -> None:
    health = after("limited")
    assert health.cause == "because limited"
    told(health, "ok", at=NOW + 2 * COOLDOWN)
    assert (health.state, health.cause, health.until_ms) == ("healthy", "", 0)


def test_a_check_that_passes_clears_a_refused_key() -> None:
    health = told(after("refused"), "ok", PROBE)
    assert (health.state, health.ready_ms) == (HealthState.HEALTHY, 0)


def test_a_check_that_passes_proves_no_money_and_lets_one_request_try() -> None:
    health = told(after("exhausted"), "ok", PROBE)
    assert (health.state, health.ready_ms) == (HealthState.DEGRADED, NOW + COOLDOWN)
    later = NOW + 5 * COOLDOWN
    told(health, "ok", PROBE, later)  # another check proves no more
    assert str(health.state) == "degraded"
    told(health, "ok", "r", later)
    assert str(health.state) == "healthy"


def test_a_key_without_money_is_tried_at_growing_intervals() -> None:
    health, at, waits = Health(), NOW, []
    for _ in range(7):
        told(health, "exhausted", at=at)
        told(health, "ok", PROBE, at)
        waits.append((health.ready_ms - at) / COOLDOWN)
        at = health.ready_ms
    assert waits == [1, 2, 4, 8, 16, 16, 16]


def test_failing_after_a_cooldown_doubles_the_next_one() -> None:
    health, at, waits = Health(), NOW, []
    for _ in range(7):
        told(health, "limited", at=at)
        waits.append((health.until_ms - at) / COOLDOWN)
        at = health.until_ms
    assert waits == [1, 2, 4, 8, 16, 16, 16]
    assert COOLDOWN_CAP == 16


def test_failing_during_a_cooldown_does_not_double_it() -> None:
    health = after("limited", "limited", "limited")
    assert (health.until_ms, health.cooldowns) == (NOW + COOLDOWN, 1)
    told(health, "limited", at=NOW + COOLDOWN / 2)  # deadlines merge by the later
    assert health.until_ms == NOW + 1.5 * COOLDOWN


@pytest.mark.parametrize(
    ("kind", "state", "ready_ms"),
    [
        pytest.param("ok", HealthState.HEALTHY, 0, id="brings the rest"),
        pytest.param(
            "fault", HealthState.DEGRADED, NOW + 4 * COOLDOWN, id="doubles at once"
        ),
        pytest.param("neutral", HealthState.DEGRADED, NOW + 2 * COOLDOWN, id="next"),
    ],
)
def test_a_half_open_trial(
    kind: VerdictKind, state: HealthState, ready_ms: float
) -> None:
    health = after("limited")
    health.trial, health.ready_ms = "trial", NEVER
    told(health, kind, "trial", NOW + 2 * COOLDOWN)
    assert (health.state, health.ready_ms, health.trial) == (state, ready_ms, "")


def test_what_others_bring_does_not_end_a_trial() -> None:
    health = after("limited")
    health.trial, health.ready_ms = "trial", NEVER
    told(health, "neutral", "another", NOW + 2 * COOLDOWN)
    told(health, "fault", "another", NOW + 2 * COOLDOWN)
    assert (health.trial, health.ready_ms, health.failures) == ("trial", NEVER, 1)


# One model on a resource ----------------------------------------------------


def of_model(
    pause: Cooldown | None, kind: VerdictKind, by: str = "r", at: float = NOW
) -> Cooldown | None:
    return judge_model(pause, say(kind), COOLDOWN, by, at)


def paused() -> Cooldown:
    pause = of_model(None, "limited")
    assert pause is not None
    return pause


def test_a_rate_limit_pauses_the_model() -> None:
    pause = paused()
    assert pause.ready_ms == NOW + COOLDOWN
    assert pause.cause == "because limited"


@pytest.mark.parametrize("kind", ["ok", "fault", "refused", "exhausted", "neutral"])
def test_nothing_else_pauses_a_model(kind: VerdictKind) -> None:
    assert of_model(None, kind) is None


@pytest.mark.parametrize(
    ("kind", "by", "at", "stays"),
    [
        pytest.param("ok", "r", NOW, True, id="was under way"),
        pytest.param("ok", "r", NOW + COOLDOWN, False, id="afterwards"),
        pytest.param("ok", "trial", NOW, False, id="the trial"),
        pytest.param("fault", "r", NOW + COOLDOWN, True, id="another's fault"),
        pytest.param("neutral", "r", NOW + COOLDOWN, True, id="says nothing"),
    ],
)
def test_when_a_paused_model_is_served_again(
    kind: VerdictKind, by: str, at: float, stays: bool
) -> None:
    pause = paused()
    pause.trial, pause.trial_until = "trial", NEVER
    assert (of_model(pause, kind, by, at) is not None) is stays


def test_a_trial_that_fails_doubles_the_pause() -> None:
    pause = paused()
    pause.trial, pause.trial_until = "trial", NEVER
    at = NOW + COOLDOWN
    assert of_model(pause, "fault", "trial", at) is pause
    assert (pause.ready_ms, pause.trial) == (at + 2 * COOLDOWN, "")


def test_after_a_trial_that_told_nothing_the_next_one_may_try() -> None:
    pause = paused()
    pause.trial, pause.trial_until = "trial", NEVER
    assert pause.ready_ms == NEVER
    assert of_model(pause, "neutral", "trial", NOW + COOLDOWN) is pause
    assert pause.ready_ms <= NOW + COOLDOWN


# After any history ----------------------------------------------------------

KINDS: list[VerdictKind] = [
    "ok", "fault", "limited", "exhausted", "refused", "neutral",
]  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(["r", "trial", PROBE]),
        st.integers(0, int(3 * COOLDOWN)),
        st.booleans(),
    ),
    max_size=30,
)


@given(STEPS)
def test_state_and_readiness_agree_after_any_history(
    steps: list[tuple[VerdictKind, str, int, bool]],
) -> None:
    health, now = Health(), NOW
    for kind, by, later, begins_trial in steps:
        now += later
        if begins_trial and 0 < health.ready_ms <= now:
            health.trial, health.ready_ms = "trial", now + 30_000
        judge(health, say(kind), COOLDOWN, by, now)
        match health.state:
            case HealthState.UNHEALTHY:
                assert health.ready_ms == NEVER
            case HealthState.DEGRADED:
                assert 0 < health.ready_ms < NEVER
            case _:
                assert (health.ready_ms, health.trial) == (0, "")
        assert health.failures < FAULTS_IN_A_ROW
    # From any state, one successful check and one request recover the resource.
    now += 100 * COOLDOWN
    judge(health, say("ok"), COOLDOWN, PROBE, now)
    now += 100 * COOLDOWN
    judge(health, say("ok"), COOLDOWN, "r", now)
    assert health.state is HealthState.HEALTHY
    assert health.ready_ms == 0
