"""Converts captured bodies to rows, one for each direction. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from libs.common.contracts.events import Row, StreamedPayload
from libs.common.store.rows import instant

COLUMNS = (
    *("request_id", "direction", "created_at", "content_type", "encoding"),
    *("original_bytes", "truncated", "dropped", "body"),
)


def payload_rows(payloads: Iterable[StreamedPayload]) -> Iterator[Row]:
    """Yield the rows. A dropped body has a row with the reason."""
    for payload in payloads:
        event = payload.event
        for direction in ("request", "response"):
            note = getattr(event, direction)
            if note is not None:
                yield {
                    "request_id": event.request_id,
                    "direction": direction,
                    "created_at": instant(event.created_at_ms),
                    **vars(note),
                    "body": payload.bodies.get(direction, b""),
                }


def as_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return a list for each column, as parameters of `unnest`."""
    return {name: [row[name] for row in rows] for name in COLUMNS}
