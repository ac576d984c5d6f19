"""Reads heads and `error` events of messages."""

from datetime import UTC, datetime

import msgspec
import pytest

from libs.common.bodies.shapes import Body
from services.gateway.websocket.frames import Head, head_in, head_of, of_error


def now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "message", [b"", b"no JSON", b"[]", b"\xff", b"1", b"[" * 9999]
)
def test_a_message_that_is_no_event_has_an_empty_head(message: bytes) -> None:
    assert (head_of(message).type, head_of(message).lane) == (None, None)


@pytest.mark.parametrize(
    ("lane", "read"), [("a", "a"), ("", None), (None, None), (7, None), ({}, None)]
)
def test_a_lane_is_a_nonempty_string(lane: object, read: str | None) -> None:
    event = {"type": "response.created", "stream_id": lane}
    assert head_of(msgspec.json.encode(event)).lane == read


def test_the_head_of_a_parsed_message_is_that_of_its_body() -> None:
    body = Body(type="response.create", stream_id="a")
    assert head_in(body) == Head("response.create", "a")
    assert head_in(None) == Head()


@pytest.mark.parametrize(
    ("event", "code", "status", "kind", "cooldown_ms"),
    [
        ({"status": 401}, None, 401, "refused", None),
        ({"status": 400}, "previous_response_not_found", 400, "neutral", None),
        ({"status_code": 500}, None, 500, "fault", None),
        ({"status": 429}, "insufficient_quota", 429, "exhausted", None),
        ({"status": 429, "headers": {"Retry-After": "7"}}, None, 429, "limited", 7000),
        (
            {"status": 429, "error": {"headers": {"retry-after-ms": 70}}},
            None, 429, "limited", 70,
        ),
        ({}, "websocket_connection_limit_reached", 200, "neutral", None),
        ({}, "server_error", 200, "fault", None),
        ({"status": "429", "error": "x", "headers": []}, None, 200, "neutral", None),
        # The ledger has no column for these.
        ({"status": 10**12}, "server_error", 200, "fault", None),
        ({"status": -1}, None, 200, "neutral", None),
        ({"status": True}, None, 200, "neutral", None),
    ],
)  # fmt: skip
def test_an_error_event_is_judged_like_an_http_response(
    event: dict[str, object],
    code: str | None,
    status: int,
    kind: str,
    cooldown_ms: int | None,
) -> None:
    said, verdict = of_error(msgspec.json.encode(event), code, now)
    assert (said, verdict.kind, verdict.cooldown_ms) == (status, kind, cooldown_ms)


@pytest.mark.parametrize("status", [429, None])
def test_an_error_event_names_the_limit_of_an_account(status: int | None) -> None:
    event = msgspec.json.encode({"type": "error", "status": status})
    message = "Rate limit reached for m in project proj_1 on tokens per min (TPM)."
    code = "rate_limit_exceeded"
    assert of_error(event, code, now, message)[1].of_account
    assert not of_error(event, code, now)[1].of_account
