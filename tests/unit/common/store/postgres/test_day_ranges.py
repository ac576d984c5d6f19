"""Which days are looked at for rows."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.store.postgres.day_ranges import (
    ALL,
    DAY,
    EVER,
    NEVER,
    Span,
    newest_first,
    of_life,
    of_request,
    of_session,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIMES = st.timedeltas(timedelta(), NEVER - EVER).map(EVER.__add__)


@given(TIMES)
def test_ever_more_of_the_past_is_looked_at(at: datetime) -> None:
    spans = newest_first(at)
    begins = [span.since for span in spans]
    assert begins == sorted(begins, reverse=True)
    assert begins[-1] == EVER
    assert all(span.until == NEVER for span in spans)


def test_a_page_looks_at_two_days_then_a_month_then_at_all() -> None:
    assert newest_first(NOW, NOW) == (
        Span(NOW - 2 * DAY, NOW),
        Span(NOW - 32 * DAY, NOW),
        Span(EVER, NOW),
    )


def test_a_request_tells_its_day_by_its_id() -> None:
    ms = int(NOW.timestamp() * 1000)
    id_ = str(UUID(int=ms << 80 | 7 << 76 | 2 << 62))
    assert of_request(id_) == (Span(NOW - DAY, NOW + DAY),)


@pytest.mark.parametrize(
    "id_",
    [
        pytest.param("req-1", id="no UUID"),
        pytest.param("4f8b0e9e-1d52-4a3c-9b1d-2f6a7c8d9e0f", id="another version"),
        pytest.param("ffffffff-ffff-7fff-bfff-ffffffffffff", id="beyond all days"),
        pytest.param("00000000-0000-7000-8000-000000000000\0", id="NUL"),
    ],
)
def test_an_id_that_tells_no_day_is_looked_for_everywhere(id_: str) -> None:
    assert of_request(id_) == (ALL,)


def test_a_session_is_not_older_than_its_first_row() -> None:
    assert of_session(NOW - 9 * DAY, NOW) == (Span(NOW - 10 * DAY),)
    assert of_session(None, NOW) == (Span(NOW - DAY),)


@pytest.mark.parametrize("lasts", [timedelta(hours=3), timedelta(hours=-3)])
def test_decisions_are_of_their_requests_days(lasts: timedelta) -> None:
    ended = NOW + lasts
    (span,) = of_life(NOW.isoformat(), ended.isoformat())
    assert span == Span(NOW - DAY, max(NOW, ended) + DAY)
