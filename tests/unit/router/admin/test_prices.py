"""`/admin/prices` over a fake database."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

import pytest
from falcon import testing

from libs.common.contracts.events import Row
from libs.common.store.interface import Actor
from services.router.admin.prices import Prices, PricesOfModel
from tests.support.values.admin import client

AMOUNTS = {"input": 1.0, "cached_input": 0.5, "output": 2.0, "reasoning": None}
ALWAYS = "1970-01-01T00:00:00.000Z"


class Rows:
    """The file has a price of `filed`."""

    def __init__(self) -> None:
        self.own: dict[str, Sequence[Mapping[str, Any]]] = {}

    def by(self, _: Actor) -> Self:
        return self

    async def put(
        self, model: str, prices: Sequence[Mapping[str, Any]], at: datetime
    ) -> Row:
        self.own[model] = prices
        return {}

    async def delete(self, model: str) -> bool:
        return self.own.pop(model, None) is not None

    async def effective(self) -> list[Row]:
        filed = {**AMOUNTS, "service_tier": "", "valid_from": ALWAYS}
        rows = [{"model": "filed", "own": False, **filed}]
        for model, prices in self.own.items():
            rows += [{"model": model, "own": True, **price} for price in prices]
        return sorted(rows, key=lambda row: row["model"])

    async def unpriced(self, now: datetime) -> list[Row]:
        return [{"model": "x", "requests": 3, "last_seen_at": ALWAYS}]


class Api:
    def __init__(self) -> None:
        self.rows, self.published = Rows(), 0
        routes = {
            "/admin/prices": Prices(self.rows, self),
            "/admin/prices/{model:path}": PricesOfModel(self.rows, self),
        }
        self.client = client(routes)

    async def changed(self) -> None:
        self.published += 1

    def ask(self, method: str, path: str = "", **more: Any) -> testing.Result:
        return self.client.simulate_request(method, f"/admin/prices{path}", **more)


@pytest.fixture
def api() -> Api:
    return Api()


def test_prices_are_set_shown_and_deleted(api: Api) -> None:
    flex = {**AMOUNTS, "service_tier": "flex", "valid_from": "2026-05-01"}
    put = api.ask("PUT", "/acme/m", json={"prices": [AMOUNTS, flex]})
    assert put.status_code == 200
    assert put.json == {
        "model": "acme/m",
        "own": True,
        "prices": [
            {**AMOUNTS, "service_tier": "", "valid_from": ALWAYS},
            {**flex, "valid_from": "2026-05-01T00:00:00.000Z"},
        ],
    }
    assert api.ask("GET", "/acme/m").json == put.json
    listed = api.ask("GET").json
    assert [each["model"] for each in listed["data"]] == ["acme/m", "filed"]
    assert [each["model"] for each in listed["unpriced"]] == ["x"]
    assert api.ask("DELETE", "/acme/m").json == put.json
    assert api.published == 2
    gone = api.ask("DELETE", "/acme/m")
    assert (gone.status_code, gone.json["error"]["code"]) == (404, "price_not_found")


def test_those_of_the_file_are_not_deleted_here(api: Api) -> None:
    assert api.ask("GET", "/filed").json["own"] is False
    refused = api.ask("DELETE", "/filed")
    assert refused.json["error"]["code"] == "price_not_found"
    assert api.published == 0


@pytest.mark.parametrize(
    ("prices", "param"),
    [
        ([], "prices"),
        ([{**AMOUNTS, "input": -1}], "prices.0.input"),
        ([{**AMOUNTS, "output": "2"}], "prices.0.output"),
        ([{**AMOUNTS, "service_tier": "A B"}], "prices.0.service_tier"),
        ([{**AMOUNTS, "valid_from": "soon"}], "prices.0.valid_from"),
        ([{**AMOUNTS, "outputs": 1}], "prices.0.outputs"),
    ],
)
def test_what_is_wrong_is_named(
    api: Api, prices: list[dict[str, Any]], param: str
) -> None:
    refused = api.ask("PUT", "/m", json={"prices": prices})
    assert refused.status_code == 400
    assert refused.json["error"]["param"] == param
    assert api.rows.own == {}


@pytest.mark.parametrize("model", ["x" * 201, "a%00b"])
def test_the_name_of_a_model_is_bounded(api: Api, model: str) -> None:
    refused = api.ask("PUT", f"/{model}", json={"prices": [AMOUNTS]})
    assert (refused.status_code, refused.json["error"]["param"]) == (404, "model")
