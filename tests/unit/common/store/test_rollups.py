"""What a batch adds to the sums of minutes and quarters, and percentiles of them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.contracts.events import Outcome, Row, StreamedEvent
from libs.common.contracts.prices import Price, PriceList
from libs.common.store.dedupe import Stored, dedupe
from libs.common.store.rollups import (
    BOUNDS_MS,
    COLUMNS,
    COUNTS,
    FIRST_TOKEN,
    LATENCY,
    MINUTE,
    QUARTER,
    Rollups,
    histogram,
    percentile,
)
from tests.support.values.telemetry import T0_MS, stored_request

MINUTE_MS = 60_000
DONE = {
    "outcome": Outcome.COMPLETED, "model": "m", "resource_id": "a",
    "proxy_key_id": "k", "attempts": 1, "latency_ms": 120.0, "first_token_ms": 40.0,
    "input_tokens": 10, "cached_tokens": 4, "output_tokens": 5, "reasoning_tokens": 1,
    "total_tokens": 15,
}  # fmt: skip


def request(id_: str = "r", at_ms: int = T0_MS, **over: Any) -> StreamedEvent:
    return stored_request(id_, created_at_ms=at_ms, **{**DONE, **over})


def rows(*events: StreamedEvent, rollups: Rollups | None = None) -> list[Row]:
    return named((rollups or Rollups()).rows(dedupe(events, {})))


def named(found: list[tuple[Any, ...]]) -> list[Row]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


def counted(row: Row) -> Row:
    """What of a row is not zero."""
    return {name: row[name] for name in COUNTS if row[name]}


def test_a_request_is_in_its_minute_and_its_quarter() -> None:
    minute, quarter = rows(request())
    assert [minute["step_seconds"], quarter["step_seconds"]] == [MINUTE, QUARTER]
    assert minute["starts_at"] == "2023-11-14T22:13:00.000Z"
    assert quarter["starts_at"] == "2023-11-14T22:00:00.000Z"
    place = minute["model"], minute["resource_id"], minute["proxy_key_id"]
    assert place == ("m", "a", "k")
    assert counted(minute) == counted(quarter) == {
        "requests": 1, "attempts": 1, "input_tokens": 10, "cached_tokens": 4,
        "output_tokens": 5, "reasoning_tokens": 1, "latency_ms": 120.0,
        "first_token_ms": 40.0, "latency_200": 1, "first_token_50": 1,
    }  # fmt: skip


def test_minutes_of_a_quarter_are_added_up() -> None:
    first, second, quarter = rows(
        request("a"), request("b", attempts=3), request("c", T0_MS + MINUTE_MS)
    )
    assert [first["requests"], second["requests"], quarter["requests"]] == [2, 1, 3]
    assert [first["attempts"], first["failovers"], quarter["failovers"]] == [4, 2, 2]
    assert quarter["latency_200"] == 3


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED])
def test_times_are_those_of_completed_requests(outcome: Outcome) -> None:
    row = counted(rows(request(outcome=outcome))[0])
    assert row[outcome.value] == row["requests"] == 1
    assert not any(name.startswith(("latency", "first_token")) for name in row)


@pytest.mark.parametrize(
    ("took_ms", "name"),
    [(0.0, "latency_25"), (25.0, "latency_25"), (25.1, "latency_50"),
     (409_600.0, "latency_409600"), (1e9, "latency_longer")],
)  # fmt: skip
def test_each_time_has_one_bucket(took_ms: float, name: str) -> None:
    row = rows(request(latency_ms=took_ms))[0]
    assert [n for n in LATENCY if row[n]] == [name]


def test_a_request_that_nothing_is_known_of() -> None:
    unknown = stored_request("r", outcome=Outcome.FAILED, model=None)
    row = rows(unknown)[0]
    assert (row["model"], row["resource_id"], row["proxy_key_id"]) == ("", "", "")
    assert row["cost"] is None


def test_a_model_has_rows_once_an_answer_reported_its_usage() -> None:
    rollups = Rollups()
    none: dict[str, Any] = {"input_tokens": None, "total_tokens": None}
    assert rows(request(model="odd", **none), rollups=rollups)[0]["model"] == "other"
    rows(request(model="odd"), rollups=rollups)
    assert rows(request(model="odd", **none), rollups=rollups)[0]["model"] == "odd"


def test_an_interrupted_request_is_subtracted_when_its_real_outcome_comes() -> None:
    lost = request(outcome=Outcome.INTERRUPTED)
    first = rows(lost)[0]
    assert (first["model"], counted(first)) == ("", {"requests": 1, "interrupted": 1})
    stored = {("r", T0_MS): Stored(None, "interrupted", 0, "a", "k")}
    added = named(Rollups().rows(dedupe([request()], stored)))
    (real, gone), _ = added[:2], added[2:]
    assert (real["model"], real["requests"], real["interrupted"]) == ("m", 1, 0)
    assert (gone["model"], counted(gone)) == ("", {"requests": -1, "interrupted": -1})
    assert (gone["resource_id"], gone["proxy_key_id"]) == ("a", "k")


def test_what_is_stored_already_adds_nothing() -> None:
    stored = {("r", T0_MS): Stored(None, "completed", 15, "a", "k")}
    assert Rollups().rows(dedupe([request()], stored)) == []


def test_the_cost_is_that_of_requests_with_a_price() -> None:
    rollups = Rollups()
    since = datetime(2020, 1, 1, tzinfo=UTC)
    rollups.prices = PriceList([Price("m", since, 1.0, 0.5, 2.0)])
    priced, unpriced, *_ = rows(
        request("a"), request("b"), request("c", model="free"), rollups=rollups
    )
    assert priced["cost"] == pytest.approx(2 * (6 * 1.0 + 4 * 0.5 + 5 * 2.0) / 1e6)
    assert unpriced["cost"] is None


def test_no_requests_have_no_percentile() -> None:
    assert percentile([0] * len(LATENCY), 0.5) is None


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        pytest.param({25: 4}, 0.5, 12.5, id="within the first"),
        pytest.param({50: 4}, 0.5, 37.5, id="within another"),
        pytest.param({25: 1, 100: 1}, 0.5, 25.0, id="at a bound"),
        pytest.param({25: 95, 3200: 5}, 0.95, 25.0, id="95 of 100"),
        pytest.param({25: 94, 3200: 6}, 0.95, 1600 + 1600 / 6, id="beyond"),
        pytest.param({"longer": 1}, 0.5, 409_600.0, id="longer than all bounds"),
    ],
)
def test_percentiles(counts: Row, share: float, expected: float) -> None:
    row = {
        **dict.fromkeys(LATENCY, 0),
        **{f"latency_{k}": n for k, n in counts.items()},
    }
    assert percentile(histogram(row, LATENCY), share) == pytest.approx(expected)


@given(st.lists(st.floats(0, 400_000), min_size=1), st.sampled_from([0.5, 0.95]))
def test_a_percentile_is_in_the_bucket_of_the_exact_one(
    times: list[float], share: float
) -> None:
    events = [request(f"r{n}", first_token_ms=ms) for n, ms in enumerate(times)]
    row = rows(*events)[0]
    found = percentile(histogram(row, FIRST_TOKEN), share)
    wanted = share * len(times)
    exact = sorted(times)[max(int(-(-wanted // 1)) - 1, 0)]
    upper = next(bound for bound in BOUNDS_MS if exact <= bound)
    lower = 0 if upper == BOUNDS_MS[0] else upper // 2
    assert found is not None
    assert lower <= found <= upper
