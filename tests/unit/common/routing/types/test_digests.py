"""Digests of ids and names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.routing.types import digest, model_digest, session_digest

# As clients may send it: JSON can contain lone surrogates.
ANY_TEXT = st.text(st.characters(codec=None), max_size=300)


@given(ANY_TEXT)
def test_a_digest_is_fit_for_a_key_whatever_the_id_is(value: str) -> None:
    found = digest(value)
    assert len(found) == 32
    assert set(found) <= set("0123456789abcdef")
    assert session_digest(value) == found


@given(st.text(max_size=50), st.text(max_size=50))
def test_digests_are_equal_for_equal_ids_only(one: str, other: str) -> None:
    assert (digest(one) == digest(other)) == (one == other)


def test_the_digest_is_the_one_that_redis_holds() -> None:
    # It is in keys that outlive a release, so it must never change.
    assert digest("resp_1") == "6d2aba8514f6b04fbded04f562d8e72d"


@pytest.mark.parametrize("model", [None, ""])
def test_no_model_has_no_digest(model: str | None) -> None:
    assert model_digest(model) == ""
    assert model_digest("gpt-5") == digest("gpt-5")
