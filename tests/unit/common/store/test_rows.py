"""Events as rows."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.events import DecisionEvent, RequestEvent
from libs.common.store.dedupe import GatewayDelta, SessionDelta
from libs.common.store.interface import DeadLetter
from libs.common.store.rows import (
    dead_letter_row,
    decision_row,
    event_row,
    gateway_row,
    instant,
    iso,
    iso_ms,
    milliseconds,
    minted_rows,
    request_row,
    session_row,
    storable,
)
from tests.support.values.telemetry import (
    T0_MS,
    decision_event,
    health_event,
    request_event,
    streamed,
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


def test_an_event() -> None:
    event = streamed(health_event())
    row = event_row(event)
    assert (row["id"], row["kind"], row["created_at"]) == (
        "health-1", "health", instant(T0_MS)
    )  # fmt: skip
    assert json.loads(row["data"]) == event.event.model_dump(mode="json")


def test_a_request_has_columns_named_as_its_fields_and_no_minted_ids() -> None:
    row = request_row(request_event("r", minted=("x",), latency_ms=1.5))
    expected = {
        name.removesuffix("_ms") if name.endswith("_at_ms") else name
        for name in RequestEvent.model_fields
    }
    assert set(row) == expected - {"minted"}
    assert row["created_at"] == instant(T0_MS)
    assert row["latency_ms"] == 1.5  # a duration stays what it is


def test_a_decision_has_the_entrys_id_and_its_candidates_as_json() -> None:
    event = decision_event()
    row = decision_row("d", event)
    assert row["id"] == "d"
    assert json.loads(row["candidates"])[1]["refused"] == "cooling down"
    assert set(DecisionEvent.model_fields) - set(row) == {"created_at_ms"}


@pytest.mark.parametrize(
    ("given_", "account"),
    [({"account_id": "a"}, "a"), ({}, "one")],
)
def test_minted_ids(given_: dict[str, str], account: str) -> None:
    events = [
        request_event("r", resource_id="one", minted=("x", "y"), **given_),
        request_event("none", resource_id="one"),
        request_event("nobody", minted=("z",)),
    ]
    (row,) = minted_rows(events)
    assert (row["ids"], row["request_id"]) == (("x", "y"), "r")
    assert (row["resource_id"], row["account_id"]) == ("one", account)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", True), ("ü|\n", True), ("a\0b", False), ("\ud83d", False), ("😀", True)],
)
def test_what_a_database_can_hold(text: str, expected: bool) -> None:
    assert storable(text) is expected


def test_a_session() -> None:
    row = session_row(SessionDelta("s", 2, 30, T0_MS, T0_MS + 5, "name", "one"))
    assert (row["first_seen_at"], row["last_seen_at"]) == (
        instant(T0_MS), instant(T0_MS + 5)
    )  # fmt: skip
    assert (row["requests"], row["last_resource_id"]) == (2, "one")


def test_a_gateway_that_told_nothing_has_no_times() -> None:
    silent = gateway_row(GatewayDelta("gw", stored=3))
    assert (silent["started_at"], silent["last_seen_at"]) == (None, None)
    told = gateway_row(GatewayDelta("gw", 3, T0_MS, T0_MS + 1, state="closed"))
    assert told["started_at"] == instant(T0_MS)
    assert (told["last_seen_at"], told["state"]) == (instant(T0_MS + 1), "closed")


def test_a_dead_letter() -> None:
    letter = DeadLetter("i", "5-0", None, "request", "odd", "{", T0_MS, "gw")
    row = dead_letter_row(letter)
    assert row["created_at"] == instant(T0_MS)
    assert (row["entry_id"], row["gateway_id"]) == ("5-0", "gw")
