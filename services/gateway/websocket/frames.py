"""What a socket's frames say, read no further than the ledger needs. Pure."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from libs.common.bodies.shapes import NULL, ODD_JSON, Body
from libs.common.contracts.verdicts import Verdict, judge, of_failed_response
from libs.common.headers import Header

Frame = str | bytes  # text or binary, as it came
# Events that end a response, and how.
TERMINAL = {
    "response.completed": "completed",
    "response.failed": "failed",
    "response.incomplete": "incomplete",
    "error": "error",
}


class Head(msgspec.Struct):
    """What frames are told apart by."""

    type: str | None = None
    stream_id: str | None = None

    @property
    def lane(self) -> str | None:
        return self.stream_id or None


class _OddHead(msgspec.Struct):
    type: msgspec.Raw = NULL
    stream_id: msgspec.Raw = NULL


_heads = msgspec.json.Decoder(Head)
_odd_heads = msgspec.json.Decoder(_OddHead)
_texts = msgspec.json.Decoder(str)


def head_of(frame: bytes) -> Head:
    """Type and lane; of what is no JSON neither."""
    try:
        return _heads.decode(frame)
    except msgspec.ValidationError:
        return _odd_head(frame)
    except ODD_JSON:
        return Head()


def _odd_head(frame: bytes) -> Head:
    """Of a frame whose type or lane is no text, or that is no object."""
    try:
        odd = _odd_heads.decode(frame)
    except ODD_JSON:
        return Head()
    return Head(_text(odd.type), _text(odd.stream_id))


def head_in(parsed: Body | None) -> Head:
    """The same of a body that was read in steps."""
    return Head(parsed.type, parsed.stream_id) if parsed is not None else Head()


def _text(value: msgspec.Raw) -> str | None:
    try:
        return _texts.decode(value)
    except ODD_JSON:
        return None


def of_error(
    event: bytes, code: str | None, now: Callable[[], datetime]
) -> tuple[int, Verdict]:
    """Status and verdict of an `error` frame with that error code."""
    frame: dict[str, Any] = msgspec.json.decode(event)
    status = frame.get("status", frame.get("status_code"))
    if not isinstance(status, int):
        return 200, of_failed_response(code)
    error = frame.get("error")
    given = frame.get("headers") or (isinstance(error, dict) and error.get("headers"))
    return status, judge(status, _headers(given), code, now)


def _headers(given: object) -> list[Header]:
    if not isinstance(given, dict):
        return []
    return [(str(n).lower().encode(), str(v).encode()) for n, v in given.items()]
