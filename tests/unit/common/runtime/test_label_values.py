"""Which values of a label get series of their own."""

import pytest

from libs.common.runtime.label_values import OTHER, LabelValues


def test_the_first_values_are_admitted_and_the_rest_are_other() -> None:
    values = LabelValues(2)
    assert [values.of(name) for name in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]


def test_a_value_that_may_not_be_admitted_is_other_until_it_is() -> None:
    values = LabelValues(1)
    assert values.of("a", admits=False) == OTHER
    assert values.of("a") == "a"
    assert values.of("a", admits=False) == "a"


@pytest.mark.parametrize("none", [None, ""])
def test_no_value_is_empty(none: str | None) -> None:
    values = LabelValues(0)
    assert values.of(none) == ""


@pytest.mark.parametrize("odd", ["é", "\x00", "a\n", "x" * 101, "\ud800"], ids=repr)
def test_odd_values_are_other(odd: str) -> None:
    assert LabelValues(9).of(odd) == OTHER
