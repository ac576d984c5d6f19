"""How many similar lines are logged."""

from libs.common.runtime.log_limit import (
    MOST_A_MINUTE,
    MOST_CAUSES,
    WINDOW_S,
    LogLimit,
    more,
)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_cause_has_some_lines_a_minute() -> None:
    limit = LogLimit(Clock())
    taken = [limit.take("a") for _ in range(MOST_A_MINUTE + 3)]
    assert taken == [0] * MOST_A_MINUTE + [None] * 3
    assert limit.take("b") == 0


def test_the_next_line_says_how_many_were_left_out() -> None:
    clock = Clock()
    limit = LogLimit(clock)
    for _ in range(MOST_A_MINUTE + 3):
        limit.take("a")
    clock.now += WINDOW_S
    assert [limit.take("a"), limit.take("a")] == [3, 0]
    assert (more(3), more(0)) == ({"left_out": 3}, {})


def test_many_causes_share_one_limit() -> None:
    limit = LogLimit(Clock())
    taken = [limit.take(str(n)) for n in range(MOST_CAUSES + 1_000)]
    # The shared limit is one more cause.
    assert taken.count(0) == MOST_CAUSES + MOST_A_MINUTE
    assert limit.take("0") == 0
