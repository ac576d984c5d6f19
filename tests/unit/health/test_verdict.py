"""What a check's answer or error shows about a resource."""

import json
import ssl

import httpx
import pytest

from libs.common.providers.key_echoes import NO_KEY, SentKey
from libs.common.upstream_answers.verdicts import Verdict
from services.health.verdict import account_of, of_answer, of_error, timed_out


def answer(status: int, code: str | None = None, **headers: str) -> httpx.Response:
    body = json.dumps({"error": {"code": code}} if code else {"data": []})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, text=body)


@pytest.mark.parametrize(
    ("given", "kind", "cause", "pause_ms"),
    [
        pytest.param(answer(200), "ok", "", None, id="works"),
        pytest.param(
            answer(401, "invalid_api_key"),
            "refused",
            "401 invalid_api_key",
            None,
            id="revoked",
        ),
        pytest.param(answer(403), "refused", "403 refused", None, id="forbidden"),
        pytest.param(
            answer(429, retry_after="7"),
            "limited",
            "429 rate limited",
            7000,
            id="limited, in seconds",
        ),
        pytest.param(
            answer(429, retry_after_ms="120", retry_after="7"),
            "limited",
            "429 rate limited",
            120,
            id="limited, milliseconds first",
        ),
        pytest.param(
            answer(429), "limited", "429 rate limited", None, id="limited, no hint"
        ),
        pytest.param(
            answer(429, "insufficient_quota", retry_after="7"),
            "exhausted",
            "429 insufficient_quota",
            None,
            id="no quota is no pause",
        ),
        pytest.param(answer(500), "fault", "500", None, id="server error"),
        pytest.param(answer(529), "fault", "529", None, id="overloaded"),
        pytest.param(
            answer(404),
            "neutral",
            "404: is PROXY_HEALTH_CHECK_PATH right?",
            None,
            id="an upstream without models",
        ),
        pytest.param(answer(302), "neutral", "302 redirect", None, id="redirect"),
    ],
)
def test_answers(
    given: httpx.Response, kind: str, cause: str, pause_ms: int | None
) -> None:
    verdict = of_answer(given, NO_KEY, 12.34567)
    assert (verdict.kind, verdict.cause, verdict.cooldown_ms) == (kind, cause, pause_ms)
    assert verdict.latency_ms == 12.346


@pytest.mark.parametrize("text", ["<html>", "[]", '{"error": 1}', '{"error": {}}'])
def test_a_body_of_any_shape_is_read(text: str) -> None:
    verdict = of_answer(httpx.Response(401, text=text), NO_KEY, 1)
    assert verdict.cause == "401 refused"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (httpx.ReadTimeout("sk-secret"), "check timed out"),
        (httpx.ConnectError("sk-secret"), "cannot connect"),
        (httpx.ProxyError("sk-secret"), "the HTTP proxy rejected the connection"),
        (httpx.RemoteProtocolError("sk-secret"), "check failed: RemoteProtocolError"),
    ],
)
def test_no_answer_is_a_fault_in_words_of_ours(
    error: httpx.HTTPError, cause: str
) -> None:
    assert of_error(error) == Verdict(kind="fault", cause=cause)


def test_what_is_wrong_with_tls_is_said() -> None:
    error = httpx.ConnectError("sk-secret")
    error.__cause__ = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] sk-secret")
    error.__cause__.reason = "WRONG_VERSION_NUMBER"
    cause = "the TLS handshake failed: wrong version number"
    assert of_error(error) == Verdict(kind="fault", cause=cause)


def test_a_slow_answer_is_a_fault() -> None:
    assert timed_out().kind == "fault"


def test_an_upstream_that_echoes_the_key_in_a_check() -> None:
    """Neither last_error nor the learned account contains the key."""
    sent = SentKey("sk-proj-0123456789-abcdefgh")
    headers = {"openai-organization": sent.text}
    refused = httpx.Response(401, json={"error": {"code": f"bad {sent.text}"}})
    assert of_answer(refused, sent, 1).cause == "401 bad [upstream key]"
    assert account_of(httpx.Response(200, headers=headers, json={}), sent) is None
    assert account_of(httpx.Response(200, headers=headers, json={}), NO_KEY) is not None
