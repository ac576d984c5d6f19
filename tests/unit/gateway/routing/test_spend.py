from typing import Any

import pytest

from libs.common.budgets import Budget
from libs.common.routing.budgets import LEFT, Quota, quota_at
from libs.common.routing.types import (
    BudgetReserved,
    BudgetSpent,
    KeyLimited,
    SpendUnknown,
)
from services.gateway.routing.spend import (
    SpendMemory,
    limit_headers,
    limit_lines,
    problem_of_quota,
)

DAY = 86_400_000
OWN = Budget("key:k", "ci", tokens=100, nanos=10**9, window="day")
TEAM = Budget("team:t", "Red", tokens=1_000, window="total")


def quota(
    *budgets: Budget, key: str = "k", at: int = 0, rpm: int | None = None
) -> Quota:
    return quota_at(key, rpm, None, budgets, at)


def heard(of: Quota, *spent: int) -> None:
    """Redis said so, in tokens of each budget."""
    assert of.heard is not None
    counted = [each for tokens in spent for each in (tokens, 0)]
    of.heard.left = LEFT[len(spent)].pack(0, 0, *counted)


def used(of: Quota, tokens: int) -> None:
    assert of.heard is not None
    of.heard.tokens += tokens


def test_what_redis_said_last_counts_while_it_is_away() -> None:
    has = quota(OWN, TEAM)
    memory = SpendMemory([has])
    memory.check(has)
    heard(has, 60, 60)
    used(has, 39)
    memory.check(has)
    used(has, 1)
    with pytest.raises(BudgetSpent) as spent:
        memory.check(has)
    assert (spent.value.subject, spent.value.which) == ("key:k", "tokens")
    memory.check(quota(OWN, TEAM, at=DAY))  # the next window


def test_other_keys_of_the_team_may_have_heard_more() -> None:
    other, without = quota(TEAM, key="other"), quota(key="third", rpm=1)
    memory = SpendMemory([other, without])
    memory.check(quota(OWN, TEAM))
    heard(other, 1_000)
    with pytest.raises(BudgetSpent) as spent:
        memory.check(quota(OWN, TEAM))
    assert spent.value.subject == "team:t"


def test_a_budget_that_reserves_takes_no_risk() -> None:
    holding = Budget("key:k", tokens=100, reserve=True)
    with pytest.raises(SpendUnknown):
        SpendMemory().check(quota(holding))


def test_a_spent_budget_names_its_owner_and_its_end() -> None:
    has = quota(OWN, TEAM)
    problem = problem_of_quota(has, BudgetSpent("key:k", "usd"), 0)
    assert (problem.status, problem.code, problem.kind) == (
        *(429, "insufficient_quota"),
        "insufficient_quota",
    )
    assert "key 'ci' is spent: $1.00 a day. The next one begins at 1970-01-02T00" in (
        problem.message
    )
    assert problem.headers == ()
    problem = problem_of_quota(has, BudgetSpent("team:t", "tokens"), 0)
    assert "team 'Red' is spent: 1,000 tokens. It does not fill" in problem.message
    problem = problem_of_quota(has, BudgetSpent("key:k", "rest", 7), 50)
    assert problem.kind == "insufficient_quota"
    assert "has 7 tokens left, and this request may use 50" in problem.message


@pytest.mark.parametrize(
    ("terms", "which", "amount"),
    [
        ({"nanos": 1_500_000_000}, "usd", "$1.50"),
        ({"nanos": 1_000_000}, "usd", "$0.001"),
        ({"tokens": 5}, "tokens", "5 tokens"),
    ],
)
def test_a_budget_may_have_one_limit(
    terms: dict[str, Any], which: str, amount: str
) -> None:
    has = quota(Budget("key:k", "ci", window="total", **terms))
    problem = problem_of_quota(has, BudgetSpent("key:k", which), 0)
    assert f"is spent: {amount}. It does not fill" in problem.message


def test_other_refusals_ask_to_try_again() -> None:
    has = quota(OWN, rpm=7)
    problem = problem_of_quota(has, KeyLimited("requests", 1_500), 0)
    assert (problem.status, problem.code) == (429, "rate_limit_exceeded")
    assert "7 requests per minute" in problem.message
    assert problem.headers == ((b"retry-after", b"2"),)
    problem = problem_of_quota(has, BudgetReserved("key:k"), 0)
    assert (problem.status, problem.code) == (429, "rate_limit_exceeded")
    assert problem.headers == ((b"retry-after", b"1"),)
    assert problem_of_quota(has, SpendUnknown("key:k"), 0).status == 503


def test_clients_see_the_limits_of_their_key() -> None:
    left = LEFT[2].pack(6, 0, 40, 0, 950, 0)
    found = dict(limit_headers(quota(OWN, TEAM, rpm=9), left, DAY - 5_000))
    assert found == {
        b"x-ratelimit-limit-requests": b"9",
        b"x-ratelimit-remaining-requests": b"3",
        b"x-ratelimit-reset-requests": b"65s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"50",
        b"x-ratelimit-reset-tokens": b"253402300000s".replace(
            b"253402300000", b"%d" % ((253_402_300_800_000 - DAY + 5_000) // 1000)
        ),
    }
    assert (
        limit_headers(quota(Budget("key:k", nanos=5)), LEFT[1].pack(0, 0, 0, 0), 0)
        == []
    )


def test_what_has_the_least_left_is_told() -> None:
    has = quota_at("k", None, 50, (OWN,), 0)
    for told, expected in (
        ((0, 20, 60, 0), [b"50", b"30", b"65s"]),
        ((0, 20, 80, 0), [b"100", b"20", b"86399s"]),
        ((0, 70, 60, 0), [b"50", b"0", b"65s"]),  # responses under way exceed it
    ):
        headers = limit_headers(has, LEFT[1].pack(*told), 7)
        assert [value for _, value in headers] == expected
    lines = limit_lines(quota_at("k", 9, None, (), 0), LEFT[0].pack(2, 5), 7)
    assert lines == (
        b"x-ratelimit-limit-requests: 9\r\n"
        b"x-ratelimit-remaining-requests: 7\r\n"
        b"x-ratelimit-reset-requests: 65s\r\n"
    )
