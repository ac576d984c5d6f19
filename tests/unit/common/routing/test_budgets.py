import json
from dataclasses import replace

import pytest

from libs.common.budgets import Budget
from libs.common.routing.budgets import (
    KNOWN,
    LEFT,
    RECOUNTING,
    UNKNOWN,
    Spend,
    State,
    level,
    quota_at,
    refusal,
    spend_of,
    spent_of,
)

NOW = 1_800_000_000_000
DAY = 86_400_000
BUDGET = Budget("key:k", tokens=100, nanos=1_000, window="day", soft_percent=50)
HOLDING = Budget("key:k", tokens=100, window="day", reserve=True)


def test_limits_are_one_text() -> None:
    quota = quota_at("k", 6, None, (BUDGET, replace_subject(HOLDING, "team:t")), NOW)
    start = NOW - NOW % DAY
    window = {"kind": "day@UTC", "starts": start, "ends": start + DAY}
    assert json.loads(quota.text) == {
        "id": quota.id,
        "key": "k",
        "rpm": 6,
        "budgets": [
            {"subject": "key:k", **window, "soft": 50, "tokens": 100, "nanos": 1_000},
            {"subject": "team:t", **window, "soft": 80, "tokens": 100, "reserve": True},
        ],
    }
    assert (quota.starts, quota.ends) == ((start, start), (start + DAY, start + DAY))
    assert (quota.ends_ms, quota.reserves) == (start + DAY, True)
    assert not quota_at("k", None, 5, (BUDGET,), NOW).reserves
    assert quota_at("k", 7, None, quota.budgets, NOW).id != quota.id


def replace_subject(budget: Budget, subject: str) -> Budget:
    return Budget(subject, tokens=budget.tokens, window="day", reserve=budget.reserve)


def test_what_is_spent() -> None:
    assert spent_of(LEFT[0].pack(5, 6), 0) == []
    assert spent_of(LEFT[2].pack(5, 0, 10, 2**52, 0, 7) + b"a|", 2) == [
        (10, 2**52),
        (0, 7),
    ]


def test_spend_is_of_a_window() -> None:
    spend = spend_of("key:k", "day@UTC 5 9 100 2000 30 1")
    assert spend == Spend("key:k", 5, 9, 100, 2_000, 30, KNOWN)
    assert spend_of("key:k", "") is None


@pytest.mark.parametrize(
    ("budget", "sure", "tokens", "nanos", "reserved", "amount", "why"),
    [
        (BUDGET, KNOWN, 99, 999, 0, 0, None),
        (BUDGET, KNOWN, 100, 0, 0, 0, "budget_spent"),
        (BUDGET, KNOWN, 0, 1_000, 0, 0, "budget_spent"),
        (BUDGET, UNKNOWN, 0, 0, 0, 0, "spend_unknown"),
        (BUDGET, RECOUNTING, 0, 0, 0, 0, None),
        (HOLDING, RECOUNTING, 0, 0, 0, 0, "spend_unknown"),
        (HOLDING, KNOWN, 40, 0, 30, 30, None),
        (HOLDING, KNOWN, 40, 0, 30, 31, "budget_reserved"),
        (HOLDING, KNOWN, 40, 0, 30, 61, "budget_spent"),
    ],
)
def test_who_is_refused(  # noqa: PLR0913 - a table
    budget: Budget,
    sure: int,
    tokens: int,
    nanos: int,
    reserved: int,
    amount: int,
    why: str | None,
) -> None:
    state = State(0, DAY, sure, tokens, nanos, reserved)
    assert refusal(budget, state, amount) == why


def test_thresholds() -> None:
    found = [
        level(BUDGET, *spent) for spent in ((49, 0), (50, 0), (0, 500), (0, 1_000))
    ]
    assert found == [0, 1, 1, 2]


def test_windows_follow_each_other() -> None:
    known = State(0, DAY, KNOWN, tokens=5)
    assert known.at(0, DAY) is known
    assert known.at(DAY, 2 * DAY) == State(DAY, 2 * DAY, KNOWN)
    assert known.at(-DAY, 0) is known  # of a request that was accepted before
    assert known.at(DAY // 2, DAY) == State(DAY // 2, DAY, UNKNOWN)
    unsure = replace(known, sure=UNKNOWN)
    assert unsure.at(DAY, 2 * DAY) == State(DAY, 2 * DAY, UNKNOWN)
