"""Converts captured bodies to rows, one for each direction. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from libs.common.contracts.payloads import Note, Payload
from libs.common.store.rows import iso_ms

# The columns of the table, in the order of rows.
COLUMNS = (
    *("request_id", "direction", "created_at", "content_type", "encoding"),
    *("original_bytes", "truncated", "dropped", "body"),
)
Plain = tuple[Any, ...]


def payload_rows(
    payloads: Iterable[Payload], at: Callable[[int], Any] = iso_ms
) -> Iterator[Plain]:
    """Yield the rows. A dropped body has a row with the reason. `at`: how the database
    accepts a time, from Unix milliseconds."""
    for payload in payloads:
        whose = payload.request_id, at(payload.created_at_ms)
        if payload.request is not None:
            yield _row(*whose, "request", payload.request, payload.request_body)
        if payload.response is not None:
            yield _row(*whose, "response", payload.response, payload.response_body)


def _row(
    id_: str, created_at: Any, direction: str, note: Note, body: bytes | None
) -> Plain:
    return (
        id_,
        direction,
        created_at,
        note.content_type,
        note.encoding,
        note.original_bytes,
        note.truncated,
        note.dropped,
        body or b"",
    )


def as_columns(rows: Sequence[Plain]) -> dict[str, list[Any]]:
    """Return a list for each column, as parameters of `unnest`."""
    return {name: [row[n] for row in rows] for n, name in enumerate(COLUMNS)}
