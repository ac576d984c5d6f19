"""What an answer shows about its resource, and how long the upstream asks to wait."""

from datetime import UTC, datetime

import pytest

from libs.common.upstream_answers.verdicts import cooldown_ms, judge, of_failed_response

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def now() -> datetime:
    return NOW


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (200, None, "ok"),
        (302, None, "ok"),
        (400, "previous_response_not_found", "neutral"),
        (404, None, "neutral"),
        (409, None, "neutral"),
        (413, None, "neutral"),
        (422, None, "neutral"),
        (401, "invalid_api_key", "refused"),
        (403, None, "refused"),
        (403, "model_not_found", "neutral"),
        (429, "rate_limit_exceeded", "limited"),
        (429, "insufficient_quota", "exhausted"),
        (429, "credit_balance_exhausted", "exhausted"),
        (429, "organization_spend_limit_exceeded", "exhausted"),
        (429, "project_spend_limit_exceeded", "exhausted"),
        (429, "organization_usage_limit_exceeded", "exhausted"),
        (500, "server_error", "fault"),
        (529, None, "fault"),
        # Azure: the status as the code, and errors of deployments.
        (401, "401", "refused"),
        (403, "403", "refused"),
        (404, "404", "neutral"),
        (404, "DeploymentNotFound", "neutral"),
        (400, "OperationNotSupported", "neutral"),
        (400, "content_filter", "neutral"),
        (429, "429", "limited"),
        (429, "RateLimitReached", "limited"),
        (500, "InternalServerError", "fault"),
        (503, "503", "fault"),
    ],
)
def test_verdict(status: int, code: str | None, kind: str) -> None:
    assert judge(status, [], code, now).kind == kind


def test_a_status_is_not_repeated_as_the_cause() -> None:
    assert judge(401, [], "401", now).cause == "401 refused"
    assert judge(403, [], "PermissionDenied", now).cause == "403 PermissionDenied"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("rate_limit_exceeded", "limited"),
        ("429", "limited"),
        ("insufficient_quota", "exhausted"),
        ("401", "refused"),
        ("server_error", "fault"),
        ("503", "fault"),
        ("404", "neutral"),
        ("DeploymentNotFound", "neutral"),
        (None, "neutral"),
    ],
)
def test_verdict_of_an_error_in_a_stream(code: str | None, kind: str) -> None:
    assert of_failed_response(code).kind == kind


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            [(b"retry-after-ms", b"250"), (b"retry-after", b"9")], 250, id="ms"
        ),
        pytest.param([(b"retry-after", b"2")], 2000, id="seconds"),
        pytest.param([(b"retry-after", b"1.5")], 1500, id="fraction"),
        pytest.param(
            [(b"retry-after", b"Tue, 24 Nov 2026 12:00:07 GMT")], 7000, id="date"
        ),
        pytest.param(
            [(b"retry-after", b"Tue, 24 Nov 2026 11:00:00 GMT")], 0, id="past date"
        ),
        pytest.param([(b"retry-after", b"soon")], None, id="nonsense"),
        pytest.param([(b"retry-after", b"-5")], None, id="negative"),
        pytest.param([(b"retry-after", b"99999999")], 3_600_000, id="capped"),
        pytest.param(
            [
                (b"x-ratelimit-remaining-requests", b"0"),
                (b"x-ratelimit-reset-requests", b"6m0s"),
            ],
            360_000,
            id="reset of a used-up limit",
        ),
        pytest.param(
            [
                (b"x-ratelimit-remaining-tokens", b"12"),
                (b"x-ratelimit-reset-tokens", b"120ms"),
            ],
            None,
            id="limit not used up",
        ),
        pytest.param(
            [
                (b"apim-request-id", b"7c5f"),
                (b"x-ratelimit-remaining-tokens", b"0"),
                (b"x-ratelimit-reset-tokens", b"41"),
            ],
            41_000,
            id="reset in seconds, of Azure",
        ),
        pytest.param(
            [
                (b"apim-request-id", b"7c5f"),
                (b"retry-after-ms", b"1500"),
                (b"retry-after", b"86400"),
            ],
            1_500,
            id="ms, of Azure",
        ),
        pytest.param([], None, id="nothing said"),
    ],
)
def test_pause(headers: list[tuple[bytes, bytes]], expected: int | None) -> None:
    assert cooldown_ms(headers, now) == expected
