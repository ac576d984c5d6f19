"""Converts captured bodies to rows, one for each direction. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from libs.common.contracts.events import Row
from libs.common.contracts.payloads import Payload
from libs.common.store.rows import instant

COLUMNS = (
    *("request_id", "direction", "created_at", "original_bytes", "content_type"),
    *("encoding", "truncated", "dropped", "body"),
)


def payload_rows(payloads: Iterable[Payload]) -> Iterator[Row]:
    """Yield the rows. A dropped body has a row with the reason."""
    for payload in payloads:
        for direction in ("request", "response"):
            note = getattr(payload, direction)
            if note is not None:
                yield {
                    "request_id": payload.request_id,
                    "direction": direction,
                    "created_at": instant(payload.created_at_ms),
                    **msgspec.structs.asdict(note),
                    "body": getattr(payload, f"{direction}_body") or b"",
                }


def as_columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return a list for each column, as parameters of `unnest`."""
    return {name: [row[name] for row in rows] for name in COLUMNS}
