"""The selection policy: a table of cases, and the claim that binds it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.policy import Option, least_loaded


def first(_: int) -> int:
    return 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param([], None, id="nobody there"),
        pytest.param([Option("a", 1, available=False)], None, id="unavailable"),
        pytest.param([Option("a", 1, 3), Option("b", 1, 1)], "b", id="least in flight"),
        pytest.param([Option("a", 4, 3), Option("b", 1, 1)], "a", id="per weight"),
        pytest.param([Option("a", 2), Option("b", 1)], "a", id="idle: the heavier"),
        pytest.param(
            [Option("a", 9, available=False), Option("b", 1, 50)],
            "b",
            id="only one",
        ),
    ],
)
def test_least_loaded(options: list[Option], expected: str | None) -> None:
    chosen = least_loaded(options, first)
    assert (chosen and chosen.resource_id) == expected


def test_ties_are_drawn() -> None:
    options = [Option(name, 1) for name in "abc"]
    drawn = [least_loaded(options, lambda n, i=i: i % n) for i in range(3)]  # type: ignore[misc]
    assert {option.resource_id for option in drawn if option} == {"a", "b", "c"}


@given(
    st.lists(
        st.builds(
            Option,
            st.text(min_size=1),
            st.floats(0.1, 100),
            st.integers(0, 1000),
            st.booleans(),
        )
    ),
    st.integers(0, 10**6),
)
def test_the_choice_is_available_and_none_is_less_loaded(
    options: list[Option], draw: int
) -> None:
    chosen = least_loaded(options, lambda n: draw % n)
    available = [option for option in options if option.available]
    assert (chosen is None) == (not available)
    if chosen is not None:
        assert chosen.available
        assert chosen.load == min(option.load for option in available)
