"""Captured bodies as rows."""

from libs.common.contracts.payloads import Note, Payload
from libs.common.store.payload_rows import COLUMNS, as_columns, payload_rows
from libs.common.store.rows import iso_ms
from tests.support.values.telemetry import T0_MS

REQUEST = Note(content_type="application/json", original_bytes=9, truncated=True)
DROPPED = Note(original_bytes=5, dropped="too large")


def payload(request: Note | None = None, response: Note | None = None) -> Payload:
    return Payload("r1", T0_MS, request, response, request_body=b"packed")


def test_each_direction_is_a_row_and_a_dropped_body_says_why() -> None:
    request, response = payload_rows([payload(request=REQUEST, response=DROPPED)])
    assert dict(zip(COLUMNS, request, strict=True)) == {
        "request_id": "r1",
        "direction": "request",
        "created_at": iso_ms(T0_MS),
        "content_type": "application/json",
        "encoding": "zstd",
        "original_bytes": 9,
        "truncated": True,
        "dropped": None,
        "body": b"packed",
    }
    shown = dict(zip(COLUMNS, response, strict=True))
    assert (shown["direction"], shown["dropped"]) == ("response", "too large")
    assert shown["body"] == b""


def test_a_direction_that_was_not_captured_has_no_row() -> None:
    (row,) = payload_rows([payload(response=DROPPED)])
    assert "response" in row
    assert list(payload_rows([payload()])) == []


def test_the_columns_for_one_statement() -> None:
    rows = list(payload_rows([payload(request=REQUEST), payload(request=DROPPED)]))
    columns = as_columns(rows)
    assert tuple(columns) == COLUMNS
    assert columns["dropped"] == [None, "too large"]
    assert as_columns([]) == {name: [] for name in COLUMNS}
