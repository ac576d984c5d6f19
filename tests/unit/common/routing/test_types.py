"""Digests, stream positions, and what refusals carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.routing.types import (
    Beat,
    EntryId,
    NoCapacity,
    NoResources,
    Owner,
    OwnerGone,
    OwnerLimited,
    Refusal,
    StreamEnds,
    UnknownIds,
    UnknownPool,
    digest,
    model_digest,
    session_digest,
)

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


def test_an_owner_is_encoded_as_the_library_reads_it() -> None:
    assert Owner("openai-1", "org/project").encoded() == "openai-1|org/project|"
    owner = Owner("openai-1", "org/project", "team:red")
    assert owner.encoded() == "openai-1|org/project|team:red"


def test_refusals_say_what_is_needed_to_answer_them() -> None:
    assert UnknownIds(1200).age_ms == 1200
    assert UnknownPool(("a", "b")).pools == ("a", "b")
    assert NoCapacity(30).retry_after_ms == 30
    assert OwnerLimited(40).retry_after_ms == 40
    for kind in (NoResources(), OwnerGone(), NoCapacity(0)):
        assert isinstance(kind, Refusal)
        assert kind.event == b""


@pytest.mark.parametrize(
    ("first", "entry", "stored"),
    [
        pytest.param(None, (5, 0), True, id="nothing waits"),
        pytest.param((6, 0), (5, 9), True, id="older than all that waits"),
        pytest.param((5, 1), (5, 0), True, id="older within the millisecond"),
        pytest.param((5, 0), (5, 0), False, id="the oldest that waits"),
        pytest.param((4, 7), (5, 0), False, id="behind others that wait"),
    ],
)
def test_what_is_older_than_the_first_entry_is_stored(
    first: EntryId | None, entry: EntryId, stored: bool
) -> None:
    assert StreamEnds(first_id=first, last_id=(9, 0)).stored(entry) is stored


def test_a_beat_of_an_empty_redis() -> None:
    beat = Beat(version=None, known=False)
    assert (beat.born, beat.ends.last_id, beat.ends.added) == ("", (0, 0), 0)
