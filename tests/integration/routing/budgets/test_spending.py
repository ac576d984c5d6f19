"""What is spent, in which window, when it refuses and when it is told."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.routing.budgets import KNOWN, UNKNOWN, State, refusal, spent_of
from libs.common.routing.types import BudgetSpent, SpendUnknown
from tests.integration.routing.budgets.scene import DAY, KEY, TEAM, Scene, budget

pytestmark = pytest.mark.asyncio


async def test_a_budget_is_spent_by_what_responses_used(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, nanos=5_000))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    assert await scene.spent() == (0, 0, UNKNOWN)
    await scene.summed()
    decision = await scene.acquire(quota)
    assert spent_of(decision.left, 1) == [(0, 0)]
    await scene.release(quota, 60, 4_000)
    assert spent_of((await scene.acquire(quota)).left, 1) == [(60, 4_000)]
    await scene.release(quota, 39, 1_001)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota)
    assert (refused.value.subject, refused.value.which) == (KEY, "usd")
    await scene.release(quota, 1, 0, number=99)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota)
    assert refused.value.which == "tokens"
    assert await scene.spent() == (100, 0, KNOWN)


async def test_both_the_key_and_its_team_must_allow(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100), budget(TEAM, tokens=10, window="total"))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    await scene.acquire(quota)
    await scene.release(quota, 10)
    with pytest.raises(BudgetSpent) as refused:
        await scene.acquire(quota)
    assert refused.value.subject == TEAM
    (spend,) = await scene.routing.spend(TEAM)
    assert spend is not None
    assert (spend.window_start_ms, spend.window_end_ms) == (0, END_OF_TIME_MS)


async def test_the_next_window_begins_with_nothing(scene: Scene) -> None:
    before = scene.quota(budget(tokens=10))
    with pytest.raises(SpendUnknown):
        await scene.acquire(before)
    await scene.summed()
    await scene.acquire(before)
    running = scene.number
    await scene.acquire(before)
    await scene.release(before, 10)
    scene.now += DAY
    after = scene.quota(budget(tokens=10))
    await scene.acquire(after)
    assert await scene.spent() == (0, 0, KNOWN)
    await scene.release(after, 3)
    # Accepted in the window before: it belongs to that one.
    await scene.release(before, 8, number=running)
    assert await scene.spent() == (3, 0, KNOWN)


async def test_a_window_of_another_kind_is_summed_anew(scene: Scene) -> None:
    day = scene.quota(budget(tokens=10))
    with pytest.raises(SpendUnknown):
        await scene.acquire(day)
    await scene.summed()
    week = scene.quota(budget(tokens=10, window="week"))
    with pytest.raises(SpendUnknown):
        await scene.acquire(week)
    await scene.summed(tokens=10)
    with pytest.raises(BudgetSpent):
        await scene.acquire(week)


async def test_thresholds_are_told_once_in_a_window(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100, soft_percent=50))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    for number, tokens in enumerate((49, 1, 10, 40, 5)):
        await scene.release(quota, tokens, number=number + 1)
    told = [(event["state"], event["tokens"]) for event in await scene.told("budget")]
    assert told == [("soft", 50), ("exhausted", 100)]


async def test_a_lowered_budget_is_told_when_it_refuses(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed(tokens=50)
    lowered = scene.quota(budget(tokens=50))
    for _ in range(2):
        with pytest.raises(BudgetSpent):
            await scene.acquire(lowered)
    (told,) = await scene.told("budget")
    assert (told["state"], told["limit_tokens"]) == ("exhausted", 50)
    await scene.acquire(quota)


async def test_a_threshold_that_a_sum_has_passed_is_told_by_the_next_request(
    scene: Scene,
) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed(tokens=85)
    for _ in range(2):
        await scene.acquire(quota)
        await scene.release(quota, 1)
    (told,) = await scene.told("budget")
    assert (told["state"], told["tokens"]) == ("soft", 86)


async def test_an_unknown_spend_can_be_overruled(scene: Scene) -> None:
    quota = scene.quota(budget(tokens=100))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.acquire(quota, "-0")
    await scene.release(quota, 100)
    with pytest.raises(BudgetSpent):
        await scene.acquire(quota, "-0")


async def test_a_lower_limit_holds_while_requests_with_the_old_one_end(
    scene: Scene,
) -> None:
    """Both were found to allow requests before."""
    quota = scene.quota(budget(tokens=1_000))
    lowered = scene.quota(budget(tokens=50))
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    for has in (quota, lowered):
        await scene.acquire(has)
    await scene.release(quota, 50, number=2)
    await scene.acquire(quota)
    with pytest.raises(BudgetSpent):
        await scene.acquire(lowered)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    limits=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    reserve=st.booleans(),
    steps=st.lists(
        st.tuples(st.integers(0, 20), st.integers(0, 9), st.booleans()), max_size=25
    ),
)
async def test_it_decides_as_the_rules_in_python_do(
    scene: Scene,
    limits: tuple[int, int],
    reserve: bool,
    steps: list[tuple[int, int, bool]],
) -> None:
    """Requests that use so many tokens and billionths; some of them in the next
    window."""
    scene.subjects += 1
    subject = f"key:p{scene.subjects}"
    has = budget(subject, tokens=limits[0], nanos=limits[1], reserve=reserve)
    quota = scene.quota(has)
    with pytest.raises(SpendUnknown):
        await scene.acquire(quota)
    await scene.summed()
    state = State(quota.starts[0], quota.ends[0], KNOWN)
    for tokens, nanos, moves_on in steps:
        if moves_on:
            scene.now += DAY
            quota = scene.quota(has)
            state = state.at(quota.starts[0], quota.ends[0])
        why = await scene.refused(quota, str(tokens))
        assert why == refusal(has, state, tokens)
        if why:
            continue
        await scene.release(quota, tokens, nanos)
        state.tokens, state.nanos = state.tokens + tokens, state.nanos + nanos
        assert await scene.spent(subject) == (state.tokens, 0, KNOWN)
