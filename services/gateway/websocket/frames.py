"""Reads the messages of a WebSocket as far as the ledger needs them. Pure."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from libs.common.bodies.shapes import NULL, ODD_JSON, Body
from libs.common.headers import Header
from libs.common.upstream_answers.verdicts import Verdict, judge, of_failed_response

Message = str | bytes  # text or binary, as received
# Types of the events that end a response, and what each means.
TERMINAL = {
    "response.completed": "completed",
    "response.failed": "failed",
    "response.incomplete": "incomplete",
    "error": "error",
}


class Head(msgspec.Struct):
    """The fields that identify a message."""

    type: str | None = None
    stream_id: str | None = None
    store: bool | None = None  # of a client's frame

    @property
    def lane(self) -> str | None:
        """Requests of one lane are answered in order."""
        return self.stream_id or None


class _OddHead(msgspec.Struct):
    type: msgspec.Raw = NULL
    stream_id: msgspec.Raw = NULL


_heads = msgspec.json.Decoder(Head)
_odd_heads = msgspec.json.Decoder(_OddHead)
_texts = msgspec.json.Decoder(str)


def head_of(message: bytes) -> Head:
    """Return type and lane of a message; an empty head if it is not JSON."""
    try:
        return _heads.decode(message)
    except msgspec.ValidationError:
        return _odd_head(message)
    except ODD_JSON:
        return Head()


def _odd_head(message: bytes) -> Head:
    """The head of a message that is not an object, or whose type or lane is not a
    string."""
    try:
        odd = _odd_heads.decode(message)
    except ODD_JSON:
        return Head()
    return Head(_text(odd.type), _text(odd.stream_id))


def head_in(parsed: Body | None) -> Head:
    """Return the head of a message that was parsed in steps."""
    return Head(parsed.type, parsed.stream_id) if parsed is not None else Head()


def _text(value: msgspec.Raw) -> str | None:
    try:
        return _texts.decode(value)
    except ODD_JSON:
        return None


def of_error(
    event: bytes,
    code: str | None,
    now: Callable[[], datetime],
    message: str | None = None,
) -> tuple[int, Verdict]:
    """Return status and verdict of an `error` event with that error code and message.

    Status and headers are where the API puts them: `status` or `status_code`,
    `headers` or `error.headers`. The status is 200 if the event has none.
    """
    stated = stated_by(event)
    if stated is None:
        return 200, of_failed_response(code, message)
    status, headers = stated
    return status, judge(status, headers, code, now, message)


# Of HTTP (RFC 9110 section 15). Another number may not fit into the ledger's column.
_STATUSES = range(100, 600)


def stated_by(event: bytes) -> tuple[int, list[Header]] | None:
    """Status and headers of an `error` event; None without a status of HTTP."""
    fields: dict[str, Any] = msgspec.json.decode(event)
    status = fields.get("status", fields.get("status_code"))
    if not isinstance(status, int) or status not in _STATUSES:
        return None
    error = fields.get("error")
    headers = fields.get("headers")
    if not headers and isinstance(error, dict):
        headers = error.get("headers")
    return status, _headers(headers)


def _headers(fields: object) -> list[Header]:
    if not isinstance(fields, dict):
        return []
    return [(str(n).lower().encode(), str(v).encode()) for n, v in fields.items()]


# Events that a response begins with, before its output.
_BEGINNING = ("response.created", "response.queued", "response.in_progress")


def is_beginning(head: Head) -> bool:
    """Does an event only say that a response was begun?"""
    return head.type in _BEGINNING


def is_shown(head: Head) -> bool:
    """Does an event belong to a response? Others say nothing that a second attempt
    would not say again."""
    kind = head.type or ""
    return kind.startswith("response.") and kind != "response.metadata"
