"""What workers counted, added up."""

import msgspec
import pytest

from services.gateway.metrics import Family
from services.gateway.scrape.snapshot import (
    Snapshot,
    Values,
    added,
    counted,
    decoded,
)

FAMILIES = {
    family.name: family
    for family in (
        Family("requests", "counter", "", ("model",)),
        Family("seconds", "histogram", "", bounds=(1.0,)),
        Family("open", "gauge", ""),
        Family("up", "gauge", "", merge="min"),
        Family("worst", "gauge", "", merge="max"),
    )
}
ONE: Values = {
    "requests": [(("a",), [1]), (("b",), [2])],
    "seconds": [((), [1, 0, 0.5])],
    "open": [((), [3])],
    "up": [((), [1])],
    "worst": [((), [1])],
}
TWO: Values = {
    "requests": [(("b",), [3])],
    "seconds": [((), [0, 2, 4.5])],
    "open": [((), [4])],
    "up": [((), [0])],
    "worst": [((), [7])],
    "of another version": [((), [1])],
}


def test_values_are_added_by_their_labels() -> None:
    assert added(FAMILIES, (ONE, TWO)) == {
        "requests": [(("a",), [1]), (("b",), [5])],
        "seconds": [((), [1, 2, 5.0])],
        "open": [((), [7])],
        "up": [((), [0])],
        "worst": [((), [7])],
    }


def test_histograms_of_different_bounds_are_not_added() -> None:
    other: Values = {"seconds": [((), [1, 1])]}
    assert added(FAMILIES, (ONE, other))["seconds"] == ONE["seconds"]


def test_a_successor_continues_from_counters_only() -> None:
    assert set(counted(FAMILIES, TWO)) == {"requests", "seconds"}


def test_a_snapshot_is_read_as_it_was_written() -> None:
    snapshot = Snapshot(7, ONE)
    assert decoded(snapshot.encoded()) == snapshot
    with pytest.raises(msgspec.MsgspecError):
        decoded(b"{}")
