"""Errors of upstreams on sockets: what ends a turn, and what its client is told."""

from typing import Any

import msgspec

from libs.common.bodies.shapes import ODD_JSON
from libs.common.upstream_answers.verdicts import of_failed_response
from services.gateway.proxy.failures import with_whole_retry_after
from services.gateway.proxy.steps import Failure
from services.gateway.websocket.frames import TERMINAL, Message, stated_by

# Headers of a refused upgrade that an error event repeats.
_TOLD = (b"retry-after", b"retry-after-ms", b"x-request-id")
# The statuses of errors that state none.
_STATUS = {"limited": 429, "exhausted": 429, "refused": 401, "fault": 500}


def failure_of(event: bytes, terminal: str, code: str | None) -> Failure:
    """An event that ends a turn with an error, as HTTP would say it. Its body is the
    event."""
    stated = stated_by(event) if terminal == "error" else None
    if stated is None:
        stated = _STATUS.get(of_failed_response(code).kind, 400), []
    return Failure(stated[0], stated[1], event)


def failure_frame(failure: Failure, lane: str | None, pause_ms: int) -> Message:
    """What a client is told of an upstream's last error: an error event as it was, or
    the refusal of an upgrade as an event. Every 429 has a `retry-after` in whole
    seconds: Codex fails without one (docs/upstream-api.md)."""
    try:
        told = msgspec.json.decode(failure.body)
    except ODD_JSON:
        told = None
    fields: dict[str, Any] = told if isinstance(told, dict) else {}
    is_event = fields.get("type") in TERMINAL
    headers = list(failure.headers)
    if failure.status == 429:
        headers = with_whole_retry_after(headers, pause_ms)
    if is_event and headers == failure.headers:
        return failure.body.decode("utf-8", "replace")
    if not is_event:
        fields = {"type": "error", "error": fields.get("error") or _no_words(failure)}
        headers = [h for h in headers if h[0] in _TOLD]
    fields["status"] = failure.status
    if headers:
        fields["headers"] = {
            n.decode("latin-1"): v.decode("latin-1") for n, v in headers
        }
    if lane is not None:
        fields["stream_id"] = lane
    return msgspec.json.encode(fields).decode()


def _no_words(failure: Failure) -> dict[str, Any]:
    message = f"The upstream refused the WebSocket with status {failure.status}."
    kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    return {"type": kind, "code": None, "message": message, "param": None}
