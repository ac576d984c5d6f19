"""All errors of the gateway: the envelope, its types, and their WebSocket frames."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from services.gateway import errors
from services.gateway.errors import Problem, error_frame, retry_after

# A value for each parameter of any error.
VALUES: dict[str, Any] = {
    "path": "/x",
    "status": 502,
    "coding": "x" * 500,
    "limit": 7,
    "seconds": 1.5,
    "method": "POST",
    "what": "broke",
    "asked": "p" * 500,
    "allowed": ["a", "b"],
    "which": "requests",
    "wait_ms": 1500,
    "pools": ["a"],
    "alias": "fast",
    "provider_id": "local",
    "retry_after_ms": 1500,
    "encrypted": False,
    "attempts": 2,
    "cause": "no route",
    "id_": "resp_1",
    "name": "Response",
    "address": "10.0.0.1",
    "most": 7,
    "endpoints": ["responses"],
    "model": "m" * 500,
    "globs": ["gpt-*"] * 50,
    "in_form": False,
    "owner": "key 'ci'",
    "amount": "$1.00 a day",
    "end": "It does not fill again.",
    "left": 7,
    "may_use": 9,
}
KINDS = {400: "invalid_request_error", 429: "rate_limit_error", 500: "server_error"}


def makers() -> list[Callable[..., Problem]]:
    return [
        function
        for _, function in inspect.getmembers(errors, inspect.isfunction)
        if inspect.signature(function).return_annotation is Problem
    ]


def made(maker: Callable[..., Problem], **over: Any) -> Problem:
    names = inspect.signature(maker).parameters
    values = VALUES | over
    if maker.__name__.endswith(("_isolated", "endpoint_not_allowed")):
        values["path"] = b"/x"
    if maker is errors.effort_not_allowed:
        values["most"] = "high"
    if maker is errors.output_not_limited:
        values["asked"] = 9
    return maker(**{name: values[name] for name in names})


@pytest.mark.parametrize("maker", makers(), ids=lambda maker: maker.__name__)
def test_each_has_the_whole_envelope_and_says_what_to_do(
    maker: Callable[..., Problem],
) -> None:
    problem = made(maker)
    error = json.loads(problem.body())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    kind = 429 if problem.status == 429 else 500 if problem.status >= 500 else 400
    quota = error["code"] == "insufficient_quota"
    assert error["type"] == ("insufficient_quota" if quota else KINDS[kind])
    assert error["code"] == problem.code
    assert error["param"] == problem.param
    assert error["message"] == str(problem)
    assert len(error["message"]) < 400  # client data is quoted in part only
    if error["code"] is None:
        return  # an upstream's own words for an unknown id
    assert error["message"].endswith(".")
    assert problem.ledger_code


@pytest.mark.parametrize(
    ("milliseconds", "seconds"),
    [(0, b"1"), (1, b"1"), (1000, b"1"), (1001, b"2"), (30_000, b"30"), (-5, b"1")],
)
def test_retry_after_is_whole_seconds_and_at_least_one(
    milliseconds: int, seconds: bytes
) -> None:
    assert retry_after(milliseconds) == (b"retry-after", seconds)


@pytest.mark.parametrize("lane", [None, "lane-1"])
def test_a_frame_tells_the_same_with_its_status(lane: str | None) -> None:
    problem = errors.no_capacity(1000)
    frame = json.loads(error_frame(problem, lane))
    assert (frame["type"], frame["status"]) == ("error", 503)
    assert frame["error"] == json.loads(problem.body())["error"]
    assert frame.get("stream_id") == lane
