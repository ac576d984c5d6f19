"""Budgets of proxy keys and teams: their terms and windows. Pure.

Money is counted in billionths of a dollar, so that a token of any price is a whole
number of them, and sums are exact."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from libs.common.contracts.events import END_OF_TIME_MS
from libs.common.contracts.prices import NANOS

MOST_USD = 1_000_000
MOST_TOKENS = 10**15  # Lua counts whole numbers up to 2^53
SOFT_PERCENT = 80
WindowKind = Literal["day", "week", "month", "total"]
PREFIX = "budget_"  # of the fields of keys and teams


class Terms(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A budget as a key or a team has it: its fields without `budget_`. Neither `usd`
    nor `tokens`: there is none."""

    usd: float | None = None
    tokens: int | None = None
    window: WindowKind = "month"
    time_zone: str = "UTC"
    soft_percent: int = SOFT_PERCENT
    reserve: bool = False


class Budget(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A budget as gateways know it. `subject`: `key:<id>` or `team:<id>`; `name`: what
    its owner is called. `reserve`: count what a request may use until it ends."""

    subject: str
    name: str = ""
    nanos: int | None = None
    tokens: int | None = None
    window: WindowKind = "month"
    time_zone: str = "UTC"
    soft_percent: int = SOFT_PERCENT
    reserve: bool = False

    @property
    def kind(self) -> str:
        """The kind of its windows. Spend of another kind is of no use for it."""
        return f"{self.window}@{self.time_zone}"


class Window(NamedTuple):
    """Unix milliseconds: from the start, up to but not including the end."""

    start_ms: int
    end_ms: int


def budget_of(subject: str, name: str, terms: Mapping[str, Any]) -> Budget | None:
    """The budget of a key or a team with these terms, if they limit anything."""
    has = msgspec.convert(terms, Terms, strict=False)
    if has.usd is None and has.tokens is None:
        return None
    nanos = None if has.usd is None else round(has.usd * NANOS)
    shape = has.window, has.time_zone, has.soft_percent, has.reserve
    return Budget(subject, name, nanos, has.tokens, *shape)


def new_terms(terms: Mapping[str, Any]) -> dict[str, Any]:
    """The terms of a new budget, without those that are the default."""
    found: dict[str, Any] = msgspec.to_builtins(
        msgspec.convert(terms, Terms, strict=False)
    )
    return found


def shown_terms(terms: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a key or a team that describe its budget."""
    has = msgspec.convert(terms, Terms, strict=False)
    return {PREFIX + name: getattr(has, name) for name in Terms.__struct_fields__}


def split_terms(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a key or a team without those of its budget, and the terms of its
    budget."""
    rest = {k: v for k, v in fields.items() if not k.startswith(PREFIX)}
    terms = {k.removeprefix(PREFIX): v for k, v in fields.items() if k not in rest}
    return rest, terms


def window_at(kind: WindowKind, time_zone: str, at_ms: int) -> Window:
    """The window in which a moment is. Days begin at midnight in the time zone, weeks
    on Monday; a day may have 23 or 25 hours."""
    if kind == "total":
        return Window(0, END_OF_TIME_MS)
    zone = _zone(time_zone)
    day = datetime.fromtimestamp(at_ms / 1000, zone).date()
    if kind == "week":
        day -= timedelta(days=day.weekday())
        after = day + timedelta(days=7)
    elif kind == "month":
        day = day.replace(day=1)
        after = (day + timedelta(days=31)).replace(day=1)
    else:
        after = day + timedelta(days=1)
    return Window(_midnight_ms(day, zone), _midnight_ms(after, zone))


def _midnight_ms(day: date, zone: tzinfo) -> int:
    # Whole seconds: exact in a float.
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1000


@lru_cache(256)
def _zone(name: str) -> tzinfo:
    """UTC where this machine does not know the zone."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return UTC
