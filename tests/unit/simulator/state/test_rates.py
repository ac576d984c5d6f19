"""Limits of accounts in the simulated upstream."""

import pytest

from libs.simulator.api.errors import ApiError
from libs.simulator.state.rates import Rate, Rates


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_tokens_come_back() -> None:
    clock = Clock()
    rates = Rates(clock)
    rates.limit(Rate("a", "m", tokens=600, level=100))
    rates.take("a", "m", {"max_output_tokens": 80}, 40)
    with pytest.raises(ApiError) as refused:
        rates.take("a", "m", {}, 120)
    assert refused.value.status == 429
    assert refused.value.message == (
        "Rate limit reached for m in organization a on tokens per min (TPM): Limit "
        "600, Used 590, Requested 30. Please try again in 2s. Visit "
        "https://platform.openai.com/account/rate-limits to learn more."
    )
    assert rates.headers("a", "m", 429) == {
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "10",
        "x-ratelimit-reset-tokens": "59000ms",
        "retry-after": "2",
    }
    clock.now = 2
    rates.take("a", "m", {}, 120)
    assert rates.headers("a", "m", 200)["x-ratelimit-remaining-tokens"] == "0"
    assert [each.served for each in rates.asked("a", "m")] == [True, False, True]


def test_what_is_not_limited() -> None:
    rates = Rates()
    rates.limit(Rate("a", "m", tokens=0, refill_per_s=0, scope=None))
    rates.take("a", "other", {}, 1_000)
    rates.take("b", "m", {}, 1_000)
    rates.take("a", None, {}, 1_000)
    assert rates.headers("b", "m", 200) == {}
    assert rates.asked("b", "m") == []
    with pytest.raises(ApiError, match=r"reached for m on tokens .* again in 60s"):
        rates.take("a", "m", {}, 1_000)
    assert [shown["level"] for shown in rates.shown()] == [0]
    rates.clear()
    rates.take("a", "m", {}, 1_000)
