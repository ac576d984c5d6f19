"""Limits of accounts. tests/integration/routing/test_policy_agrees.py compares them
with the function library."""

import pytest

from libs.common.contracts.rate_limits import LONGEST_MS, Told
from libs.common.routing.account_limits import (
    ASK_AGAIN_MS,
    MOST_LIMITED,
    AccountLimits,
    Limit,
    LimitTable,
    full_until,
    learned,
    most_left,
    take,
)

NOW = 1_000_000.0


def tokens(remaining: float, *, resets: float = NOW + 20_000) -> AccountLimits:
    return AccountLimits(NOW, tokens=Limit(1_000, remaining, resets))


def told(remaining: int, reset_ms: int, age_ms: int = 0) -> str:
    return Told(-1, -1, -1, 1_000, remaining, reset_ms).encoded(age_ms)


@pytest.mark.parametrize(
    ("limits", "needed", "until"),
    [
        (None, 10, None),
        (tokens(10), 10, None),
        (tokens(9), 10, NOW + 20_000),
        (tokens(9, resets=NOW), 10, None),
        (tokens(9, resets=NOW + LONGEST_MS + 1), 10, None),  # a clock jumped
        (tokens(1_000), 9_999, None),  # nothing more will be left later
        (tokens(999), 9_999, NOW + 20_000),
        (AccountLimits(NOW, Limit(10, 0, NOW + 5)), 0, NOW + 5),
        (AccountLimits(NOW, Limit(10, 1, NOW + 5)), 0, None),
        (AccountLimits(NOW, Limit(10, 0, NOW + 5), Limit(1, 0, NOW + 9)), 1, NOW + 9),
    ],
)
def test_when_an_account_can_take_a_request(
    limits: AccountLimits | None, needed: int, until: float | None
) -> None:
    assert full_until(limits, needed, NOW) == until


def test_a_limited_account_is_asked_once_a_second() -> None:
    limits = tokens(0)
    assert full_until(limits, 10, NOW + ASK_AGAIN_MS - 1)
    later = NOW + ASK_AGAIN_MS
    assert full_until(limits, 10, later) is None
    take(limits, 10, later)
    assert full_until(limits, 10, later)
    assert full_until(limits, 10, later + ASK_AGAIN_MS - 1)
    assert full_until(limits, 10, later + ASK_AGAIN_MS) is None


def test_one_request_is_under_way_when_the_limit_resets() -> None:
    limits = tokens(0)
    late = limits.tokens.reset_at - 1
    assert full_until(limits, 10, late) is None
    take(limits, 10, late)
    assert full_until(limits, 10, late + ASK_AGAIN_MS - 1)
    assert full_until(limits, 10, late + ASK_AGAIN_MS) is None


def test_a_clock_that_steps_back_limits_nothing() -> None:
    assert full_until(tokens(0), 10, NOW - 1) is None


def test_requests_are_subtracted_when_little_is_left() -> None:
    plenty = tokens(900)
    take(plenty, 100, NOW)
    assert plenty.tokens.remaining == 900
    little = tokens(300)
    take(little, 100, NOW)
    take(little, 250, NOW)
    assert little.tokens.remaining == 0
    assert little.asked_at == NOW
    few = AccountLimits(NOW, Limit(100, 20, NOW + 5), Limit(1_000, 900, NOW + 5))
    take(few, 100, NOW)
    assert (few.requests.remaining, few.tokens.remaining) == (19, 800)


def test_the_newer_of_two_answers_counts() -> None:
    newer = learned(None, told(100, 20_000), NOW)
    assert newer == tokens(100)
    assert learned(newer, told(900, 20_000, age_ms=1), NOW) is newer
    found = learned(newer, told(900, 20_000, age_ms=1), NOW + 2)
    assert found is not None
    assert (found.told_at, found.tokens.remaining) == (NOW + 1, 900)


def test_a_clock_that_stepped_back_does_not_keep_what_is_known() -> None:
    before = learned(None, told(100, 20_000), NOW)
    found = learned(before, told(900, 20_000), NOW - 5_000)
    assert found is not None
    assert found.tokens.remaining == 900


def test_a_limit_that_was_reset_meanwhile_is_not_known() -> None:
    found = learned(None, told(0, 500, age_ms=600), NOW)
    assert found == AccountLimits(NOW - 600)


def test_a_table_forgets_what_was_reset() -> None:
    table = LimitTable()
    table.learn("m", "a", told(0, 500), NOW)
    table.learn("m", "b", told(0, 900), NOW)
    table.learn("", "a", told(0, 900), NOW)
    assert set(table.of("m", NOW)) == {"a", "b"}
    assert table.ends == [NOW + 500, NOW + 900]
    table.learn("m", "c", told(0, 900), NOW + 600)
    assert set(table.of("m", NOW + 600)) == {"b", "c"}
    assert table.of("m", NOW + 1_500) == {}
    table.took("m", "a", 5, NOW)  # nothing is known


def test_a_table_is_bounded() -> None:
    table = LimitTable()
    for number in range(MOST_LIMITED + 1):
        table.learn(f"m{number}", "a", told(0, 10_000 + number), NOW)
    assert len(table.ends) == MOST_LIMITED
    assert not table.of("m0", NOW)
    table.took(f"m{MOST_LIMITED}", "a", 5, NOW)


def test_the_larger_share_wins_in_whole_percent() -> None:
    assert tokens(999).share == 99
    assert AccountLimits(NOW, Limit(10, 5, NOW), Limit(10, 4, NOW)).share == 40
    assert AccountLimits(NOW).share == 100
    assert most_left("abc", [5, 9, 9]) == ["b", "c"]
    assert most_left("", []) == []
