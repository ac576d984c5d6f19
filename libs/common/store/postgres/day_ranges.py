"""Selects the days to search for rows, newest first, because most queries ask for
recent rows. Each day is a partition, and a query plans, opens and locks every partition
that its bounds do not exclude: for a year of days this takes 40 ms, and a few such
queries at once exceed the lock table. Pure."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

EVER = datetime(1, 1, 2, tzinfo=UTC)  # a day inside the limits: time zones shift them
NEVER = datetime(9999, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)
STEPS = (2 * DAY, 32 * DAY)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMED_VERSION = 7  # of UUIDs: the first 48 bits are Unix milliseconds


class Span(NamedTuple):
    since: datetime
    until: datetime = NEVER


ALL = Span(EVER)


def newest_first(at: datetime, until: datetime = NEVER) -> Sequence[Span]:
    """Return increasing ranges before `at`; the last one has no lower bound."""
    since = (at - step if at - EVER > step else EVER for step in STEPS)
    return (*(Span(each, until) for each in since), Span(EVER, until))


def of_request(id_: str) -> Sequence[Span]:
    """Return the day of a request. Its id contains the time, like `created_at`."""
    at = _time_of(id_)
    return (ALL,) if at is None else (Span(at - DAY, at + DAY),)


def of_session(first_seen: datetime | None, now: datetime) -> Sequence[Span]:
    """Return the days of a session since its first row. An unknown session may have
    requests that are still running."""
    return (Span((first_seen or now) - DAY),)


def of_life(created_at: str, completed_at: str) -> Sequence[Span]:
    """Return the days of the decisions of a request; allows for clock differences."""
    began, ended = map(datetime.fromisoformat, (created_at, completed_at))
    return (Span(began - DAY, max(began, ended) + DAY),)


def _time_of(id_: str) -> datetime | None:
    try:
        parsed = uuid.UUID(id_)
    except ValueError:
        return None
    if parsed.version != TIMED_VERSION:
        return None
    try:
        at = EPOCH + timedelta(milliseconds=parsed.int >> 80)
    except OverflowError:  # 48 bits of milliseconds exceed the year 9999
        return None
    return at if EVER + DAY < at < NEVER - DAY else None
