"""Which days to look at for rows, and in which order: newest first, as what is asked
for is mostly new. Each day is a partition, and a query plans, opens and locks every
one that it does not rule out: a year of days costs forty milliseconds and more locks
than a few such queries at once may take. Pure."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

EVER = datetime(1, 1, 2, tzinfo=UTC)  # a day from the ends: time zones move them
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
    """Ever more of the past before `at`, and all there is in the end."""
    since = (at - step if at - EVER > step else EVER for step in STEPS)
    return (*(Span(each, until) for each in since), Span(EVER, until))


def of_request(id_: str) -> Sequence[Span]:
    """Ours carry their time, by the clock that also made `created_at`."""
    at = _time_of(id_)
    return (ALL,) if at is None else (Span(at - DAY, at + DAY),)


def of_session(first_seen: datetime | None, now: datetime) -> Sequence[Span]:
    """No row of a session is older than its first; one that is not known may have
    requests that still run."""
    return (Span((first_seen or now) - DAY),)


def of_life(created_at: str, completed_at: str) -> Sequence[Span]:
    """The decisions of a request, by the times of its row; clocks differ."""
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
    except OverflowError:  # 48 bits of milliseconds reach beyond the year 9999
        return None
    return at if EVER + DAY < at < NEVER - DAY else None
