"""Errors of upstreams on sockets: as HTTP would say them, and as clients get them."""

import json
from typing import Any

import msgspec
import pytest

from libs.common.headers import Header
from services.gateway.proxy.steps import Failure
from services.gateway.websocket.failures import failure_frame, failure_of

LIMITED = {"type": "error", "status": 429, "error": {"code": "rate_limit_exceeded"}}


@pytest.mark.parametrize(
    ("event", "terminal", "code", "status"),
    [
        ({"status": 503}, "error", None, 503),
        ({"status_code": 401}, "error", None, 401),
        ({}, "error", "rate_limit_exceeded", 429),
        ({}, "error", "insufficient_quota", 429),
        ({}, "error", "invalid_api_key", 401),
        ({}, "error", "server_is_overloaded", 500),
        ({}, "error", "websocket_connection_limit_reached", 400),
        ({"status": 500}, "failed", "context_length_exceeded", 400),
        ({}, "failed", "server_error", 500),
    ],
)
def test_an_event_is_a_failure_as_http_would_say_it(
    event: dict[str, Any], terminal: str, code: str | None, status: int
) -> None:
    body = msgspec.json.encode(event)
    assert failure_of(body, terminal, code) == Failure(status, [], body)


def test_the_headers_of_an_event_are_those_of_the_failure() -> None:
    event = msgspec.json.encode({"status": 429, "headers": {"Retry-After": 7}})
    assert failure_of(event, "error", None).headers == [(b"retry-after", b"7")]


def told(failure: Failure, lane: str | None = None) -> dict[str, Any]:
    frame = failure_frame(failure, lane, 30_000)
    return dict(json.loads(frame))


def test_an_error_event_is_told_as_it_was() -> None:
    body = b'{ "type":"error", "status":500 ,"error":{}}'
    assert failure_frame(Failure(500, [], body), "one", 1) == body.decode()
    limited = b'{"type":"error" ,"status":429,"headers":{"retry-after":"3"}}'
    headers = [(b"retry-after", b"3")]
    assert failure_frame(Failure(429, headers, limited), None, 1) == limited.decode()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [([], "30"), ([(b"retry-after", b"1.5")], "2"), ([(b"retry-after-ms", b"9")], "1")],
)
def test_every_429_says_when_to_come_back(headers: list[Header], seconds: str) -> None:
    frame = told(Failure(429, headers, msgspec.json.encode(LIMITED)))
    assert frame["headers"]["retry-after"] == seconds
    assert frame["error"] == LIMITED["error"]


def test_a_refused_upgrade_is_an_error_event() -> None:
    error = {"code": "x", "message": "y"}
    headers = [(b"x-request-id", b"r"), (b"content-type", b"application/json")]
    failure = Failure(404, headers, msgspec.json.encode({"error": error}))
    assert told(failure, "one") == {
        "type": "error",
        "status": 404,
        "error": error,
        "headers": {"x-request-id": "r"},
        "stream_id": "one",
    }


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'{"error":null}'])
def test_a_refusal_without_words_gets_some(body: bytes) -> None:
    frame = told(Failure(503, [], body))
    assert frame["error"]["type"] == "server_error"
    assert "503" in frame["error"]["message"]
