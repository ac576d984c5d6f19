"""What requests cost by a price list."""

from datetime import UTC, datetime
from typing import Any

import pytest

from libs.common.contracts.prices import NANOS, Price, PriceList
from tests.support.values.telemetry import request_event


def at(year: int) -> datetime:
    return datetime(year, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "cost"),
    [
        ({"model": "gpt-5", "input_tokens": 2_000_000}, 4.0),
        # The model that answered has priority, with the newest valid price.
        ({"model": "gpt-5", "upstream_model": "gpt-5-mini", "output_tokens": 10}, 3e-5),
        ({"model": "gpt-5", "upstream_model": "unknown", "output_tokens": 10}, 1e-4),
        ({"model": "gpt-5", "input_tokens": 100, "cached_tokens": 100}, 1e-4),
        ({"model": "unknown", "input_tokens": 1}, None),
        ({"input_tokens": 1}, None),
        ({"model": "gpt-6", "input_tokens": 1}, None),  # not valid yet
    ],
)
def test_a_request_costs_what_its_tokens_cost(
    given: dict[str, Any], cost: float | None
) -> None:
    prices = PriceList(
        [
            Price("gpt-5", at(2020), 2.0, 1.0, 10.0),
            Price("gpt-5", at(2019), 99.0, 99.0, 99.0),
            Price("gpt-5-mini", at(2020), 1.0, 0.5, 3.0),
            Price("gpt-6", at(2030), 2.0, 1.0, 10.0),
        ]
    )
    found = prices.nanos_of(request_event(**given))
    assert found == (None if cost is None else round(cost * NANOS))


@pytest.mark.parametrize(
    ("given", "cost"),
    [
        pytest.param({}, 30.0, id="reasoning at the price of output"),
        pytest.param({"service_tier": "default"}, 30.0, id="a tier without a price"),
        pytest.param({"service_tier": "flex"}, 9.0, id="a tier with one"),
        pytest.param({"service_tier": "late"}, 30.0, id="not valid yet"),
        pytest.param(
            {"upstream_model": "n", "service_tier": "flex"}, 4.0,
            id="the model that answered has only a general one",
        ),
    ],
)  # fmt: skip
def test_tiers_and_reasoning(given: dict[str, Any], cost: float) -> None:
    prices = PriceList(
        [
            Price("m", at(2020), 0.0, 0.0, 10.0),
            Price("m", at(2020), 0.0, 0.0, 4.0, 1.0, "flex"),
            Price("m", at(2030), 0.0, 0.0, 9.0, None, "late"),
            Price("n", at(2020), 0.0, 0.0, 2.0, 0.0),
        ]
    )
    used = {"model": "m", "output_tokens": 3_000_000, "reasoning_tokens": 1_000_000}
    found = prices.cost_of(request_event(**{**used, **given}))
    assert found == pytest.approx(cost)


def test_an_empty_list_is_none() -> None:
    assert not PriceList([])
    assert PriceList([Price("m", at(2020), 0.0, 0.0, 1.0)])


def test_what_the_gateway_counted_stays() -> None:
    prices = PriceList([Price("m", at(2020), 2.0, 1.0, 10.0)])
    used = request_event(model="m", input_tokens=1, cost_nanos=3)
    assert prices.cost_of(used) == 3e-9
    assert PriceList(()).cost_of(used) == 3e-9


def test_a_cost_is_rounded_once_to_a_billionth_of_a_dollar() -> None:
    prices = PriceList([Price("m", at(2020), 0.0005, 0.0004, 10.0)])
    assert prices.nanos_of(request_event(model="m", input_tokens=1)) == 1
    cached = request_event(model="m", input_tokens=1, cached_tokens=1)
    assert prices.nanos_of(cached) == 0
