"""Stream positions, and beats."""

import pytest

from libs.common.routing.types import Beat, EntryId, StreamEnds


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
