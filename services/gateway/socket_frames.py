"""What a socket's frames say, read no further than the ledger needs. Pure."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from libs.common.bodies import ODD_JSON
from libs.common.contracts import Verdict
from libs.common.headers import Header
from libs.common.verdicts import judge, of_failed_response

Frame = str | bytes  # text or binary, as it came
# Events that end a response, and how.
TERMINAL = {
    "response.completed": "completed",
    "response.failed": "failed",
    "response.incomplete": "incomplete",
    "error": "error",
}


class _Head(msgspec.Struct):
    type: Any = None
    stream_id: Any = None

    @property
    def lane(self) -> str | None:
        lane = self.stream_id
        return lane if isinstance(lane, str) and lane else None


_heads = msgspec.json.Decoder(_Head)


def head_of(frame: bytes) -> _Head:
    """Type and lane; of what is no JSON neither."""
    try:
        return _heads.decode(frame)
    except ODD_JSON:
        return _Head()


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
