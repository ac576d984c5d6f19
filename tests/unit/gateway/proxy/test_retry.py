"""Which answers cause a retry on another resource, and the recorded reasons."""

from datetime import UTC, datetime

import pytest

from libs.common.contracts.events import Cause
from libs.common.contracts.verdicts import judge
from services.gateway.proxy.retry import (
    cause_of,
    is_unreadable,
    retried,
    waiting_helps,
)
from services.gateway.proxy.steps import Failure
from services.gateway.upstream.client import Broken, Interrupted, NoKey, Slow, TimedOut
from services.gateway.upstream.errors import NoFreeConnection, NotSent, UpstreamError


def now() -> datetime:
    return datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "code", "cause"),
    [
        (429, None, "rate_limited"),
        (429, "rate_limit_exceeded", "rate_limited"),
        (429, "insufficient_quota", "insufficient_quota"),
        (401, "invalid_api_key", "key_refused"),
        (403, "unsupported_country_region_territory", "key_refused"),
        (403, "model_not_found", "model_refused"),
        (500, "server_error", "server_error"),
        (503, None, "server_error"),
        (529, None, "server_error"),
    ],
)
def test_answers_that_are_not_the_last(
    status: int, code: str | None, cause: str
) -> None:
    assert retried(status)
    assert cause_of(status, judge(status, [], code, now)) == cause


def test_a_wrong_request_is_sent_again_only_when_it_was_changed() -> None:
    assert not retried(400)
    code = "invalid_encrypted_content"
    assert cause_of(400, judge(400, [], code, now)) == "request_refused"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (NotSent("no address"), "connect_error"),
        (NoFreeConnection(), "no_free_connection"),
        (NoKey(), "no_key"),
        (Broken("it closed the connection"), "connection_lost"),
        (Interrupted("it closed the connection"), "connection_lost"),
        (Slow("its answer did not begin in time"), "timeout"),
        (TimedOut("it took too long"), "timeout"),
    ],
)
def test_attempts_without_an_answer(error: UpstreamError, cause: str) -> None:
    assert Cause(error.cause) == cause


@pytest.mark.parametrize(
    ("failed", "status", "helps"),
    [(401, 429, True), (403, 429, True), (401, 503, False), (500, 429, False)],
)
def test_waiting_helps_while_a_sibling_of_a_refused_key_is_limited(
    failed: int, status: int, helps: bool
) -> None:
    assert waiting_helps(Failure(failed, [], b""), status) is helps
    assert not waiting_helps(None, status)


@pytest.mark.parametrize(
    ("status", "code", "unreadable"),
    [
        (400, "invalid_encrypted_content", True),
        (400, "other", False),
        (404, "invalid_encrypted_content", False),
    ],
)
def test_reasoning_of_another_account_is_unreadable(
    status: int, code: str, unreadable: bool
) -> None:
    assert is_unreadable(status, code) is unreadable
