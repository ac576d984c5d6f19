"""Reading frames of sockets."""

from datetime import UTC, datetime

import msgspec
import pytest

from services.gateway.websocket.frames import head_of, of_error


def now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("frame", [b"", b"no JSON", b"[]", b"\xff", b"1", b"[" * 9999])
def test_what_is_no_event_has_neither_type_nor_lane(frame: bytes) -> None:
    assert (head_of(frame).type, head_of(frame).lane) == (None, None)


@pytest.mark.parametrize(
    ("lane", "read"), [("a", "a"), ("", None), (None, None), (7, None), ({}, None)]
)
def test_a_lane_is_a_name(lane: object, read: str | None) -> None:
    frame = msgspec.json.encode({"type": "response.created", "stream_id": lane})
    assert head_of(frame).lane == read


@pytest.mark.parametrize(
    ("frame", "code", "status", "kind", "pause_ms"),
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
    ],
)  # fmt: skip
def test_an_error_frame_is_judged_like_an_answer(
    frame: dict[str, object],
    code: str | None,
    status: int,
    kind: str,
    pause_ms: int | None,
) -> None:
    said, verdict = of_error(msgspec.json.encode(frame), code, now)
    assert (said, verdict.kind, verdict.cooldown_ms) == (status, kind, pause_ms)
