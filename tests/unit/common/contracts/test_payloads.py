"""Captured bodies on their way to SQL."""

import json

import msgspec

from libs.common.contracts.payloads import NOTES_BYTES, Note, Payload

PAYLOAD = Payload(
    "r", 1, Note(6, "text/plain"), Note(9, dropped="no room"), request_body=b"SECRET"
)


def test_its_size_is_that_of_its_bodies_and_notes() -> None:
    assert PAYLOAD.size == 6 + NOTES_BYTES
    assert Payload("r", 1).size == NOTES_BYTES


def test_its_description_has_no_body() -> None:
    assert json.loads(PAYLOAD.described()) == {
        "request_id": "r",
        "created_at_ms": 1,
        "request": {"original_bytes": 6, "content_type": "text/plain"},
        "response": {"original_bytes": 9, "dropped": "no room"},
    }


def test_a_reader_ignores_fields_that_a_later_version_appends() -> None:
    later = [*msgspec.to_builtins(PAYLOAD), "new"]
    assert msgspec.convert(later, Payload) == PAYLOAD
