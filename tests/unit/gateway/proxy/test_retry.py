"""Which answers cause a retry on another resource, and the recorded reasons."""

from datetime import UTC, datetime

import pytest

from libs.common.bodies.hints import Hints
from libs.common.contracts.events import Cause
from libs.common.headers import Header, find
from libs.common.upstream_answers.verdicts import judge
from services.gateway.proxy.retry import (
    cause_of,
    end_of_attempts,
    gives_way,
    is_unreadable,
    is_withheld,
    may_repeat,
    next_step,
    retried,
    waiting_helps,
    with_sooner_wait,
)
from services.gateway.proxy.steps import Failure, Next
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
        (404, "DeploymentNotFound", "model_refused"),
        (500, "server_error", "server_error"),
        (503, None, "server_error"),
        (529, None, "server_error"),
    ],
)
def test_answers_that_are_not_the_last(
    status: int, code: str | None, cause: str
) -> None:
    assert retried(status, code)
    assert cause_of(status, judge(status, [], code, now), code) == cause


@pytest.mark.parametrize(
    ("cause", "most", "ends"),
    [
        ("server_error", 3, 4),
        ("rate_limited", 3, 4),
        ("model_refused", 3, 4),
        ("stale_connection", 3, 7),
        ("key_refused", 3, 7),
        ("insufficient_quota", 3, 7),
        ("stale_connection", 1, 3),
        ("key_refused", 1, 2),
    ],
)
def test_some_attempts_do_not_count(cause: str, most: int, ends: int) -> None:
    end = 1 + most
    for _ in range(10):
        end = end_of_attempts(end, 1, most, cause)
    assert end == ends


def test_a_wrong_request_is_sent_again_only_when_it_was_changed() -> None:
    assert not retried(400)
    assert not retried(404, "model_not_found")
    assert not retried(400, "DeploymentNotFound")
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
    ("method", "path", "hints", "again"),
    [
        ("GET", b"/conversations/conv_1", Hints(), True),
        ("DELETE", b"/files/file-1", Hints(), True),
        ("POST", b"/responses", Hints(), True),
        ("POST", b"/responses/compact", Hints(), True),
        ("POST", b"/responses/resp_1/cancel", Hints(), True),
        ("POST", b"/chat/completions", Hints(), True),
        ("POST", b"/responses", Hints(background=True), False),
        ("POST", b"/responses", Hints(bound_ids=("conv_1",)), False),
        ("POST", b"/responses", Hints(bound_ids=("resp_1",)), True),
        ("POST", b"/conversations", Hints(), False),
        ("POST", b"/conversations/conv_1/items", Hints(), False),
        ("POST", b"/files", Hints(), False),
        ("PATCH", b"/responses", Hints(background=True), False),
    ],
)
def test_what_may_be_done_twice(
    method: str, path: bytes, hints: Hints, again: bool
) -> None:
    assert may_repeat(method, path, hints) is again


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


@pytest.mark.parametrize(
    ("status", "code", "bound", "step"),
    [
        (503, None, False, Next.ACQUIRE),
        (401, "invalid_api_key", True, Next.ACQUIRE),
        (404, "DeploymentNotFound", False, Next.ACQUIRE),
        (404, None, True, Next.ANSWER),
        (400, "invalid_encrypted_content", True, Next.REWRITE),
        (400, "invalid_encrypted_content", False, Next.ANSWER),
    ],
)
def test_what_follows_an_answer(
    status: int, code: str | None, bound: bool, step: Next
) -> None:
    assert next_step(status, code, account_bound=bound) is step


DEAD = ["key_refused", "insufficient_quota"]


def failed(cause: str | None) -> Failure | None:
    return None if cause is None else Failure(0, [], b"", cause)


@pytest.mark.parametrize("last", [*DEAD, "model_refused", "rate_limited", ""])
@pytest.mark.parametrize(
    ("before", "unanswered", "passes"),
    [
        ("server_error", False, True),
        ("rate_limited", False, True),
        (None, True, True),
        # The first attempt, or one after a kept connection that was closed.
        (None, False, False),
        ("key_refused", True, False),
        ("insufficient_quota", True, False),
        ("model_refused", False, False),
        ("request_refused", False, False),
    ],
)
def test_a_dead_key_is_told_unless_an_attempt_before_failed_in_passing(
    last: str, before: str | None, unanswered: bool, passes: bool
) -> None:
    after = Failure(0, [], b"", last)
    withheld = is_withheld(after, failed(before), unanswered=unanswered)
    assert withheld is (passes and last in DEAD)


@pytest.mark.parametrize(
    ("before", "cause", "gives"),
    [
        ("key_refused", "connect_error", True),
        ("insufficient_quota", "connection_lost", True),
        ("key_refused", "no_key", False),  # the operator's fault, too
        ("server_error", "connect_error", False),
        ("model_refused", "connect_error", False),
        (None, "connect_error", False),
    ],
)
def test_a_dead_key_gives_way_to_an_attempt_without_an_answer(
    before: str | None, cause: str, gives: bool
) -> None:
    assert gives_way(failed(before), cause) is gives


def limited(*headers: Header) -> Failure:
    return Failure(429, [(b"x-request-id", b"r"), *headers], b"body", "rate_limited")


@pytest.mark.parametrize(
    ("before", "after", "wait"),
    [
        (limited((b"retry-after", b"2")), limited((b"retry-after", b"60")), b"2"),
        (limited((b"retry-after", b"60")), limited((b"retry-after", b"2")), b"2"),
        (limited((b"retry-after-ms", b"1100")), limited(), b"2"),
        (limited((b"retry-after-ms", b"0")), limited((b"retry-after", b"9")), b"1"),
        (limited(), limited((b"retry-after", b"60")), b"60"),
        (None, limited((b"retry-after", b"60")), b"60"),
        (Failure(500, [], b""), limited((b"retry-after", b"60")), b"60"),
        (limited((b"retry-after", b"2")), Failure(500, [], b"body"), None),
    ],
)
def test_clients_wait_for_the_soonest(
    before: Failure | None, after: Failure, wait: bytes | None
) -> None:
    found = with_sooner_wait(before, after, now)
    assert find(found.headers, b"retry-after") == wait
    assert (found.status, found.body) == (after.status, b"body")
    assert found.cause == after.cause
