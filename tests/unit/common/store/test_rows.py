"""Events as rows."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.store.dedupe import GatewayDelta, SessionDelta
from libs.common.store.interface import DeadLetter
from libs.common.store.rows import (
    instant,
    iso,
    iso_ms,
    milliseconds,
    row_of,
    storable,
)
from tests.support.values.telemetry import (
    T0_MS,
)

AT = "2023-11-14T22:13:20.123Z"
YEAR_10000_MS = 253_402_300_800_000


def test_times_are_exact() -> None:
    assert iso(instant(T0_MS)) == AT
    assert milliseconds(instant(T0_MS)) == T0_MS
    assert milliseconds(datetime.fromisoformat(AT)) == T0_MS
    assert iso(datetime(2024, 1, 1, tzinfo=UTC)) == "2024-01-01T00:00:00.000Z"


@given(st.integers(0, YEAR_10000_MS - 1))
def test_a_time_survives_both_ways_of_writing_it(ms: int) -> None:
    assert iso_ms(ms) == iso(instant(ms))
    assert milliseconds(datetime.fromisoformat(iso_ms(ms))) == ms


@given(st.integers(0, YEAR_10000_MS - 1), st.integers(0, YEAR_10000_MS - 1))
def test_times_as_text_sort_as_times(one: int, other: int) -> None:
    assert (iso_ms(one) < iso_ms(other)) == (one < other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", True), ("ü|\n", True), ("a\0b", False), ("\ud83d", False), ("😀", True)],
)
def test_what_a_database_can_hold(text: str, expected: bool) -> None:
    assert storable(text) is expected


def test_a_session() -> None:
    row = row_of(SessionDelta("s", 2, 30, T0_MS, T0_MS + 5, "name", "one"))
    assert (row["first_seen_at"], row["last_seen_at"]) == (
        instant(T0_MS), instant(T0_MS + 5)
    )  # fmt: skip
    assert (row["requests"], row["last_resource_id"]) == (2, "one")


def test_a_gateway_that_told_nothing_has_no_times() -> None:
    silent = row_of(GatewayDelta("gw", stored=3))
    assert (silent["started_at"], silent["last_seen_at"]) == (None, None)
    told = row_of(GatewayDelta("gw", 3, T0_MS, T0_MS + 1, state="closed"))
    assert told["started_at"] == instant(T0_MS)
    assert (told["last_seen_at"], told["state"]) == (instant(T0_MS + 1), "closed")


def test_a_dead_letter() -> None:
    letter = DeadLetter("i", "5-0", None, "request", "odd", "{", T0_MS, "gw")
    row = row_of(letter)
    assert row["created_at"] == instant(T0_MS)
    assert (row["entry_id"], row["gateway_id"]) == ("5-0", "gw")
