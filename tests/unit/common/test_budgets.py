from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from libs.common.budgets import (
    Budget,
    WindowKind,
    budget_of,
    new_terms,
    shown_terms,
    split_terms,
    window_at,
)
from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.contracts.prices import NANOS


def ms(text: str, zone: str = "UTC") -> int:
    at = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return int(at.timestamp() * 1000)


@pytest.mark.parametrize(
    ("kind", "zone", "at", "start", "end"),
    [
        ("day", "UTC", "2026-03-01T00:00", "2026-03-01T00:00", "2026-03-02T00:00"),
        ("week", "UTC", "2026-03-01T23:59", "2026-02-23T00:00", "2026-03-02T00:00"),
        ("month", "UTC", "2026-12-31T12:00", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("month", "UTC", "2026-01-31T12:00", "2026-01-01T00:00", "2026-02-01T00:00"),
        # The day on which summer time begins has 23 hours.
        (
            *("day", "Europe/Berlin"),
            *("2026-03-29T12:00", "2026-03-29T00:00", "2026-03-30T00:00"),
        ),
    ],
)
def test_a_window_is_one_of_the_calendar_in_its_time_zone(
    kind: WindowKind, zone: str, at: str, start: str, end: str
) -> None:
    window = window_at(kind, zone, ms(at, zone))
    assert window == (ms(start, zone), ms(end, zone))


def test_a_day_may_have_23_hours() -> None:
    window = window_at("day", "Europe/Berlin", ms("2026-03-29T12:00", "Europe/Berlin"))
    assert window.end_ms - window.start_ms == 23 * 3_600_000


def test_a_window_ends_before_its_last_moment() -> None:
    start = ms("2026-03-02T00:00")
    assert window_at("day", "UTC", start - 1).end_ms == start
    assert window_at("day", "UTC", start).start_ms == start


def test_a_total_budget_has_one_window() -> None:
    assert window_at("total", "UTC", ms("2026-03-29T12:00")) == (0, END_OF_TIME_MS)


@pytest.mark.parametrize("zone", ["Nowhere/Else", "../etc/passwd", "/dev"])
def test_an_unknown_time_zone_counts_as_utc(zone: str) -> None:
    at = ms("2026-03-29T12:00")
    assert window_at("day", zone, at) == window_at("day", "UTC", at)


def test_dollars_become_whole_billionths() -> None:
    budget = budget_of("key:a", "ci", {"usd": 0.1, "window": "day", "reserve": 1})
    nanos = NANOS // 10
    assert budget == Budget("key:a", "ci", nanos=nanos, window="day", reserve=True)
    assert budget.kind == "day@UTC"


def test_without_a_limit_there_is_no_budget() -> None:
    assert budget_of("team:a", "", {"window": "day", "soft_percent": 50}) is None


def test_terms_are_fields_with_a_prefix() -> None:
    fields = {"name": "ci", "budget_tokens": 5, "budget_usd": None}
    assert split_terms(fields) == ({"name": "ci"}, {"tokens": 5, "usd": None})
    given = {"tokens": 5, "usd": None, "window": "month", "reserve": True}
    assert new_terms(given) == {"tokens": 5, "reserve": True}
    assert shown_terms({"tokens": 5}) == {
        "budget_usd": None,
        "budget_tokens": 5,
        "budget_window": "month",
        "budget_time_zone": "UTC",
        "budget_soft_percent": 80,
        "budget_reserve": False,
    }
