"""Times and text as databases hold them, and records as rows. Pure."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from libs.common.contracts.events import Row

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def instant(ms: int) -> datetime:
    """Convert Unix milliseconds exactly; fromtimestamp would round."""
    return EPOCH + timedelta(milliseconds=ms)


def milliseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)


def iso(at: datetime) -> str:
    """Format as ISO 8601 in UTC with milliseconds and Z; sorts by time."""
    text = at.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def iso_ms(ms: int) -> str:
    """Format Unix milliseconds as `iso` does, at a third of the cost."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03}Z"


@lru_cache(4096)
def _second(seconds: int) -> str:
    return (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")


def storable(text: str) -> bool:
    """Whether a stored value can equal `text`. Databases reject NUL characters and lone
    surrogates."""
    return UNSTORABLE.search(text) is None


def row_of(record: Any) -> Row:
    """Convert a dataclass whose fields are columns: `created_at_ms` to `created_at`."""
    row: Row = {}
    for name in record.__slots__:
        value = getattr(record, name)
        if name.endswith("_at_ms"):
            row[name.removesuffix("_ms")] = None if value is None else instant(value)
        else:
            row[name] = value
    return row
