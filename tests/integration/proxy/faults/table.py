"""The table of faults: for each upstream fault, what the client gets, what the
decisions record, and the health of the resource afterwards. docs/faults.md is the same
table in words; test_table.py compares the two."""

from dataclasses import dataclass
from typing import Any

import pytest

MODEL = "gpt-5.5"
IN_A_MINUTE = "a date 60 s from now"
# HTTP dates have whole seconds only, and time passes; 30 s is the default.
A_MINUTE: Any = pytest.approx(46, abs=15)
ALREADY_TRIED = "already tried"
MODEL_PAUSED = "cooling down for this model until "
KEY_REFUSED = "key refused by the upstream"


@dataclass(frozen=True)
class Client:
    """What the client gets."""

    status: int
    code: str | None = None
    retry_after: Any = None
    attempts: int = 1
    # How the body ends: "whole", "broken", or a stream's last event.
    end: str = "whole"


@dataclass(frozen=True)
class Mark:
    """What is recorded for the resource that failed."""

    # Prefix of its last error; None: the resource is not blamed.
    cause: str | None = None
    health: str = "unknown"
    model: str | None = None  # the cooldown applies to this model only
    pause_s: Any = None
    # Prefix of the reason why the next decision skips it.
    refused: str = ALREADY_TRIED


def one_fault(cause: str) -> Mark:
    return Mark(cause)


def paused(seconds: Any, cause: str = "429") -> Mark:
    return Mark(cause, "degraded", MODEL, seconds, MODEL_PAUSED)


def shut(cause: str) -> Mark:
    return Mark(cause, "unhealthy", refused=KEY_REFUSED)


BLAMELESS = Mark()
SAVED = Client(200, attempts=2)


@dataclass(frozen=True)
class Row:
    """A fault and its consequences."""

    id: str
    fault: dict[str, Any] | None  # None: nothing listens at the upstream's port
    alone: Client  # without another key
    mark: Mark
    saved: Client = SAVED  # with another key
    stream: bool = False
    names_model: bool = True
    cause: str | None = None  # what the next decision records about this resource

    @property
    def retried(self) -> bool:
        return self.saved.attempts > 1


def limited(id_: str, told_s: Any, pause_s: Any, **headers: str) -> Row:
    """A 429 for a model: the Retry-After of the client, and our cooldown."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    client = Client(429, "rate_limit_exceeded", told_s)
    fault = {"status": 429, "headers": sent}
    return Row(id_, fault, client, paused(pause_s), cause="rate_limited")


def failing(status: int, code: str = "server_error") -> Row:
    client, mark = Client(status, code), one_fault(str(status))
    return Row(str(status), {"status": status}, client, mark, cause="server_error")


def passed_on(status: int) -> Row:
    fault = {"status": status, "code": "of_the_client"}
    client = Client(status, "of_the_client")
    return Row(str(status), fault, client, BLAMELESS, client)


def ended(id_: str, fault: dict[str, Any], mark: Mark, *, end: str) -> Row:
    """A fault after the first byte, where another key makes no difference."""
    client = Client(200, end=end)
    return Row(id_, fault, client, mark, client, stream=end != "broken")


UNREACHABLE = Client(502, "upstream_unreachable")
TIMED_OUT = Client(504, "upstream_timeout")
ROWS = [
    Row(
        "connect refused",
        None,
        UNREACHABLE,
        one_fault("connecting failed"),
        cause="connect_error",
    ),
    Row(
        "reset before headers",
        {"reset": True},
        UNREACHABLE,
        one_fault("it closed the connection"),
        cause="connection_lost",
    ),
    Row(
        "not HTTP",
        {"garbage": True},
        UNREACHABLE,
        one_fault("it sent bytes that are no HTTP"),
        cause="connection_lost",
    ),
    Row(
        "timeout before headers",
        {"timeout": True},
        TIMED_OUT,
        one_fault("timeout"),
        TIMED_OUT,
    ),
    limited("429 retry-after-ms", 10, 9.5, retry_after_ms="9500"),
    limited("429 retry-after", 7, 7, retry_after="7"),
    limited("429 retry-after fraction", 8, 7.5, retry_after="7.5"),
    limited("429 retry-after date", A_MINUTE, A_MINUTE, retry_after=IN_A_MINUTE),
    limited(
        "429 x-ratelimit-reset-requests",
        20,
        20,
        x_ratelimit_remaining_requests="0",
        x_ratelimit_reset_requests="20s",
    ),
    limited("429 without a header", 30, 30),
    Row(
        "429 without a model",
        {"status": 429, "headers": {"retry-after": "7"}},
        Client(429, "rate_limit_exceeded", 7),
        Mark("429", "degraded", None, 7, "cooling down until "),
        names_model=False,
        cause="rate_limited",
    ),
    Row(
        "429 insufficient_quota",
        {"status": 429, "code": "insufficient_quota"},
        Client(429, "insufficient_quota", 30),
        shut("429 insufficient_quota"),
        cause="insufficient_quota",
    ),
    failing(500),
    failing(502),
    failing(503, "server_is_overloaded"),
    Row(
        "503 retry-after",
        {"status": 503, "headers": {"retry-after": "7"}},
        Client(503, "server_is_overloaded", 7),
        one_fault("503"),
        cause="server_error",
    ),
    failing(504),
    failing(529),
    Row(
        "401",
        {"status": 401},
        Client(401, "invalid_api_key"),
        shut("401 invalid_api_key"),
        cause="key_refused",
    ),
    Row(
        "403",
        {"status": 403},
        Client(403, "unsupported_country_region_territory"),
        shut("403 unsupported_country_region_territory"),
        cause="key_refused",
    ),
    Row(
        "403 model_not_found",
        {"status": 403, "code": "model_not_found"},
        Client(403, "model_not_found"),
        BLAMELESS,
        cause="model_refused",
    ),
    passed_on(400),
    passed_on(404),
    passed_on(409),
    passed_on(413),
    passed_on(422),
    ended("SSE cut", {"cut_after": 3}, one_fault("broke off"), end="response.failed"),
    ended(
        "SSE ends early",
        {"end_after": 3},
        one_fault("broke off"),
        end="response.failed",
    ),
    ended("JSON cut", {"wrong_length": True}, one_fault("broke off"), end="broken"),
    ended(
        "SSE server_error",
        {"failed_event": {"code": "server_error"}},
        one_fault("server_error in a stream"),
        end="response.failed",
    ),
    ended(
        "SSE rate_limit_exceeded",
        {"failed_event": {"code": "rate_limit_exceeded"}},
        paused(30),
        end="response.failed",
    ),
]
every_row = pytest.mark.parametrize("row", [pytest.param(r, id=r.id) for r in ROWS])
