"""Tokens and cost of stored requests."""

from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import generate_latest

from libs.common.contracts.events import Outcome
from libs.common.contracts.prices import Price, PriceList
from services.ingest import usage
from services.ingest.usage import Usage
from tests.support.clients.scrapes import Scraped
from tests.support.values.telemetry import decision_event, request_event, streamed

PRICES = PriceList([Price("m", datetime(2020, 1, 1, tzinfo=UTC), 2.0, 1.0, 10.0)])


@pytest.fixture(autouse=True)
def fresh() -> None:
    for counter in (
        usage.TOKENS, usage.RESOURCE_TOKENS, usage.TENANT_TOKENS, usage.COST,
        usage.TENANT_REQUESTS, usage.POOL_REQUESTS, usage.TENANT_COST,
    ):  # fmt: skip
        counter.clear()


def counted(*events: Any, prices: PriceList | None = PRICES) -> Scraped:
    Usage(prices).count([streamed(event) for event in events])
    return Scraped(generate_latest().decode())


def asked(**given: Any) -> Any:
    values: dict[str, Any] = {
        "model": "m", "resource_id": "openai-1", "team_id": "red", "pool_id": "p",
        "proxy_key_id": "key-1", "input_tokens": 1_000_000, "cached_tokens": 400_000,
        "output_tokens": 100_000, "reasoning_tokens": 50_000,
    }  # fmt: skip
    return request_event(**{**values, **given})


def test_tokens_are_counted_by_type() -> None:
    found = counted(asked(), asked(), decision_event())
    for kind, tokens in (
        ("input", 2_000_000), ("cached", 800_000), ("output", 200_000),
        ("reasoning", 100_000),
    ):  # fmt: skip
        assert found.value("proxy_tokens_total", model="m", type=kind) == tokens
        of_key = {"resource": "openai-1", "type": kind}
        assert found.value("proxy_resource_tokens_total", **of_key) == tokens
        of_team = {"tenant": "team:red", "type": kind}
        assert found.value("proxy_tenant_tokens_total", **of_team) == tokens
    assert found.value("proxy_tenant_requests_total", tenant="team:red") == 2
    assert found.value("proxy_pool_requests_total", pool="p", outcome="completed") == 2


def test_cost_follows_the_price_list() -> None:
    found = counted(asked(), asked(team_id=None))
    each = 0.6 * 2 + 0.4 * 1 + 0.1 * 10
    assert found.value("proxy_cost_total", model="m") == pytest.approx(2 * each)
    cost = found.value("proxy_tenant_cost_total", tenant="key:key-1")
    assert cost == pytest.approx(each)


def test_a_model_without_a_price_is_counted() -> None:
    before = usage.UNPRICED._value.get()
    counted(asked(model="x"), asked(model="x", input_tokens=None, cached_tokens=None,
            output_tokens=None, reasoning_tokens=None))  # fmt: skip
    assert usage.UNPRICED._value.get() == before + 1


def test_without_prices_nothing_is_priced() -> None:
    before = usage.UNPRICED._value.get()
    found = counted(asked(), prices=None)
    assert "proxy_cost_total" not in found.names
    assert usage.UNPRICED._value.get() == before


def test_invented_names_have_no_series() -> None:
    invented = [
        asked(model=f"m{n}", pool_id=f"p{n}", resource_id=None, outcome=Outcome.FAILED,
              input_tokens=None, cached_tokens=None, output_tokens=None,
              reasoning_tokens=None)
        for n in range(500)
    ]  # fmt: skip
    found = counted(*invented, asked())
    for name, label, own in (
        ("proxy_tokens_total", "model", "m"),
        ("proxy_pool_requests_total", "pool", "p"),
    ):
        values = {dict(labels)[label] for (n, labels) in found.samples if n == name}
        assert values <= {own, "other"}


def test_many_tenants_share_a_series() -> None:
    keys = usage.MOST_TENANTS + 5
    found = counted(*(asked(team_id=None, proxy_key_id=f"k{n}") for n in range(keys)))
    assert found.value("proxy_tenant_requests_total", tenant="other") == 5


def test_negative_figures_are_not_counted() -> None:
    found = counted(asked(input_tokens=-5, cached_tokens=0, output_tokens=0))
    assert found.value("proxy_tokens_total", type="input") == 0
    assert found.value("proxy_cost_total") == 0
