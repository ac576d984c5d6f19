"""The `response.failed` event that ends a stream whose upstream broke off."""

import time
from typing import Any

import msgspec

# A response that ended before the upstream named it, with every field that SDKs
# require (docs/upstream-api.md).
_UNBORN: dict[str, Any] = {
    "id": "resp_unknown",
    "object": "response",
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "unknown",
    "output": [],
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "usage": None,
}


def failed_event(created: bytes, sequence: int, message: str) -> bytes:
    """The frame of a `response.failed` for the response of a `response.created`
    event's JSON. Without one, that event goes first: clients expect it."""
    response = _response_of(created)
    failed = response | {
        "status": "failed",
        "error": {"code": "server_error", "message": message},
        "usage": None,
    }
    if created:
        return _frame("response.failed", sequence, failed)
    begun = _frame("response.created", sequence, response)
    return begun + _frame("response.failed", sequence + 1, failed)


def _response_of(created: bytes) -> dict[str, Any]:
    try:
        return dict(msgspec.json.decode(created)["response"])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return dict(_UNBORN) | {"created_at": int(time.time())}


def _frame(kind: str, sequence: int, response: dict[str, Any]) -> bytes:
    event = {"type": kind, "sequence_number": sequence, "response": response}
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(event))
