"""What is logged of requests."""

import io
import json
import sys
from typing import Any

import pytest
from structlog.testing import capture_logs

from libs.common.runtime.log_limit import MOST_A_MINUTE, LogLimit
from services.gateway import event_log, metrics
from services.gateway.ledger.record import Record


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "_limit", LogLimit())


def record(**given: Any) -> Record:
    values = {
        "resource_id": "openai-2", "outcome": "failed", "status_code": 500,
        "attempts": 2, "proxy_key_id": "key-1", "model": "gpt-5.5",
    }  # fmt: skip
    made = Record("req-1", 1_700_000_000_123, "POST", "/v1/responses", "gw")
    for name, value in {**values, **given}.items():
        setattr(made, name, value)
    return made


def test_a_refusal_is_counted_and_logged() -> None:
    before = metrics.refused.counts.get("body_too_large", 0)
    with capture_logs() as logs:
        event_log.refused("body_too_large", 413, "req-1")
    assert metrics.refused.counts["body_too_large"] == before + 1
    (line,) = logs
    assert (line["action"], line["code"], line["status"], line["request"]) == (
        "request_refused", "body_too_large", 413, "req-1",
    )  # fmt: skip


def test_a_flood_is_counted_and_not_logged() -> None:
    before = metrics.refused.counts.get("invalid_proxy_key", 0)
    with capture_logs() as logs:
        for _ in range(1_000):
            event_log.refused("invalid_proxy_key", 401)
        event_log.refused("body_too_large", 413)
    assert metrics.refused.counts["invalid_proxy_key"] == before + 1_000
    assert len(logs) == MOST_A_MINUTE + 1


def test_a_failover_names_both_resources_and_the_cause() -> None:
    before = metrics.failovers.counts["rate_limited"]
    with capture_logs() as logs:
        event_log.failed_over(record(), "openai-1", "rate_limited")
    assert metrics.failovers.counts["rate_limited"] == before + 1
    assert logs == [
        {
            "event": "request tries another resource",
            "log_level": "warning",
            "action": "failover",
            "request": "req-1",
            "resource": "openai-1",
            "next": "openai-2",
            "attempt": 2,
            "cause": "rate_limited",
        }
    ]


@pytest.mark.parametrize(
    ("given", "verdict", "refusal", "action", "cause", "level"),
    [
        ({"outcome": "interrupted", "error_code": "gateway_restarts"}, "", None,
         "request_interrupted", "gateway_restarts", "warning"),
        ({"status_code": 200, "error_code": "server_error"}, "broke off", None,
         "request_interrupted", "upstream_broke_off", "warning"),
        ({"status_code": 200}, "timeout", None,
         "request_interrupted", "upstream_timeout", "warning"),
        ({"status_code": 200, "error_code": "client_stalled"}, "", None,
         "request_interrupted", "client_stalled", "warning"),
        ({"status_code": 429, "attempts": 0, "error_code": "rate_limit_exceeded"}, "",
         "rate_limit_exceeded", "request_refused", "rate_limit_exceeded", "warning"),
        ({}, "", None, "request_failed", 500, "warning"),
        ({"status_code": 401}, "", None, "request_failed", 401, "warning"),
        ({"status_code": 404}, "", None, "request_failed", 404, "info"),
        ({"status_code": None}, "", None, "request_failed", None, "warning"),
        ({"status_code": 502}, "", "upstream_unreachable",
         "request_failed", "upstream_unreachable", "warning"),
    ],
)  # fmt: skip
def test_a_request_that_did_not_complete_is_logged(
    given: dict[str, Any],
    verdict: str,
    refusal: str | None,
    action: str,
    cause: object,
    level: str,
) -> None:
    with capture_logs() as logs:
        event_log.ended(record(**given), verdict, refusal)
    (line,) = logs
    assert (line["action"], line["cause"], line["log_level"]) == (action, cause, level)
    assert (line["request"], line["resource"], line["key"]) == (
        "req-1", "openai-2", "key-1",
    )  # fmt: skip


def test_a_client_that_leaves_is_no_news() -> None:
    with capture_logs() as logs:
        event_log.ended(record(outcome="cancelled"), "", None)
    assert logs == []


def test_no_text_of_an_upstream_is_logged() -> None:
    told = record(error_code="x" * 5_000, error_message="secret words")
    with capture_logs() as logs:
        event_log.ended(told, "", None)
    assert "secret words" not in str(logs)
    assert len(str(logs)) < 1_000


def test_the_access_log_has_a_line_for_each_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    told = record(
        outcome="completed", status_code=200, latency_ms=12.5, session_id="of a user",
        error_message="no", path="/v1/" + "x" * 9_000, input_tokens=3,
    )  # fmt: skip
    event_log.write_access(told)
    event_log.write_access(told)
    first, second = written.getvalue().splitlines()
    assert first == second
    line = json.loads(first)
    assert line["timestamp"] == "2023-11-14T22:13:20.123Z"
    assert (line["action"], line["service"], line["level"]) == (
        "access", "gateway", "info",
    )  # fmt: skip
    assert (line["request"], line["status"], line["latency_ms"]) == ("req-1", 200, 12.5)
    assert (line["resource"], line["input_tokens"]) == ("openai-2", 3)
    assert len(line["path"]) == event_log.CHARS
    assert "of a user" not in first


def test_nobody_may_read_the_access_log(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    event_log.write_access(record())
