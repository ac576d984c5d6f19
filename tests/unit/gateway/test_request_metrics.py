"""What is counted of requests, and how many series that can make."""

from typing import Any

import pytest

from libs.common.runtime.label_values import LabelValues
from services.gateway import request_metrics
from services.gateway.ledger.record import Record
from services.gateway.request_metrics import (
    MOST_MODELS,
    MOST_PENDING,
    MOST_RESOURCES,
    attempt_ended,
    request_ended,
)
from services.gateway.scrape.scrape import Scrape
from tests.support.clients.scrapes import Scraped


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series of no other test."""
    none = request_metrics._Model("")
    model, resource = (
        request_metrics._Model("other"),
        request_metrics._Resource("other"),
    )
    for name, value in (
        ("_no_model", none),
        ("_other_model", model),
        ("_models", {"": none, "other": model}),
        ("_pending", {}),
        ("_model_values", LabelValues(MOST_MODELS)),
        ("_resources", {"other": resource}),
        ("_other_resource", resource),
        ("_resource_values", LabelValues(MOST_RESOURCES)),
    ):
        monkeypatch.setattr(request_metrics, name, value)


def shown() -> Scraped:
    return Scraped(Scrape().text().decode())


def ended(**given: Any) -> None:
    values = {
        "model": "gpt-5.5", "resource_id": "openai-1", "outcome": "completed",
        "status_code": 200, "latency_ms": 1_100.0, "first_token_ms": 100.0,
        "overhead_ms": 0.4, "input_tokens": 7, "output_tokens": 11,
    }  # fmt: skip
    record = Record("id", 0, "POST", "/v1/responses", "gw")
    for name, value in {**values, **given}.items():
        setattr(record, name, value)
    request_ended(record, "ok")


def test_a_stream_is_timed() -> None:
    ended()
    found = shown()
    model = {"model": "gpt-5.5"}
    assert (
        found.value(
            "proxy_requests_total", outcome="completed", status_class="2xx", **model
        )
        == 1
    )
    for name, seconds in (
        ("proxy_request_duration_seconds", 1.1),
        ("proxy_time_to_first_token_seconds", 0.1),
        ("proxy_time_per_output_token_seconds", 0.1),  # ten more took one second
    ):
        assert found.value(f"{name}_count", **model) == 1
        assert found.value(f"{name}_sum", **model) == pytest.approx(seconds)
        assert found.value(f"{name}_bucket", le="+Inf", **model) == 1
    resource = {"resource": "openai-1"}
    assert found.value("proxy_resource_requests_total", **resource) == 1
    assert found.value("proxy_attempts_total", verdict="ok", **resource) == 1
    name = "proxy_resource_duration_seconds"
    assert found.value(f"{name}_sum", **resource) == pytest.approx(1.1)
    assert found.value(f"{name}_count", **resource) == 1
    first = "proxy_resource_time_to_first_token_seconds"
    assert found.value(f"{first}_sum", **resource) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("status", "step"),
    [(None, "none"), (204, "2xx"), (302, "3xx"), (404, "4xx"), (529, "5xx"),
     (600, "none")],
)  # fmt: skip
def test_statuses_are_counted_by_class(status: int | None, step: str) -> None:
    ended(status_code=status, outcome="failed")
    found = shown()
    assert found.value("proxy_requests_total", outcome="failed", status_class=step) == 1


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_one_token_has_no_time_per_token(tokens: int | None) -> None:
    ended(output_tokens=tokens)
    found = shown()
    assert found.value("proxy_time_per_output_token_seconds_count") == 0
    assert found.value("proxy_time_to_first_token_seconds_count") == 1


def test_an_answer_without_a_stream_has_no_first_token() -> None:
    ended(first_token_ms=None)
    assert shown().value("proxy_time_to_first_token_seconds_count") == 0


def test_the_total_is_0_at_the_start() -> None:
    found = shown()
    for outcome in ("completed", "failed", "cancelled", "interrupted"):
        labels = (("model", ""), ("outcome", outcome), ("status_class", "none"))
        assert found.samples["proxy_requests_total", labels] == 0


def test_invented_models_have_no_series() -> None:
    """Callers choose the name, but only an answer with usage proves that it exists."""
    for number in range(1_000):
        ended(model=f"invented-{number}", outcome="failed", input_tokens=None)
    ended(model="gpt-5.5")
    ended(model="gpt-5.5", outcome="failed", input_tokens=None)
    found = shown()
    models = {dict(labels).get("model") for _, labels in found.samples} - {None}
    assert models == {"", "other", "gpt-5.5"}
    assert found.value("proxy_requests_total", model="other") == 1_000
    assert found.value("proxy_requests_total", model="gpt-5.5") == 2


@pytest.mark.parametrize(
    "name", ["x" * 101, "ü", "a\nb", "\ud800", 'a"} 1\nproxy_evil 1'], ids=repr
)
def test_strange_names_have_no_series(name: str) -> None:
    ended(model=name)
    found = shown()
    assert found.value("proxy_requests_total", model="other") == 1
    assert "proxy_evil" not in found.names


def test_many_models_and_resources_share_a_series() -> None:
    for number in range(MOST_MODELS + 5):
        ended(model=f"model-{number}", resource_id=None)
    for number in range(MOST_RESOURCES + 7):
        attempt_ended(f"resource-{number}", "ok")
    found = shown()
    assert found.value("proxy_requests_total", model="other") == 5
    assert found.value("proxy_attempts_total", resource="other") == 7
    resources = {dict(labels).get("resource") for _, labels in found.samples}
    assert len(resources - {None}) == MOST_RESOURCES + 1


def test_what_is_read_between_counts_once() -> None:
    for _ in range(2):
        ended()
        ended(outcome="failed", status_code=500, first_token_ms=None)
        found = shown()
    assert found.value("proxy_requests_total", outcome="completed") == 2
    assert found.value("proxy_requests_total", status_class="5xx") == 2
    assert found.value("proxy_resource_duration_seconds_count") == 4
    assert found.value("proxy_attempts_total", verdict="ok") == 4
    assert found.value("proxy_time_to_first_token_seconds_count") == 2


def test_what_waits_to_be_read_is_bounded() -> None:
    for number in range(MOST_PENDING + 3):
        ended(model=f"m{number}", input_tokens=None)
        ended(model="x" * 1_000 + str(number), input_tokens=None)
    assert len(request_metrics._pending) < MOST_PENDING
    assert max(len(alike[0] or "") for alike in request_metrics._pending) <= 100
    requests = shown().value("proxy_requests_total", model="other")
    assert requests == 2 * (MOST_PENDING + 3)


def test_a_model_of_the_name_other_is_another() -> None:
    ended(model="other")
    ended(model="invented", input_tokens=None)
    assert shown().value("proxy_requests_total", model="other") == 2


def test_attempts_are_counted_by_verdict() -> None:
    attempt_ended("openai-1", "limited")
    attempt_ended("openai-1", "limited")
    value = shown().value
    assert value("proxy_attempts_total", resource="openai-1", verdict="limited") == 2
