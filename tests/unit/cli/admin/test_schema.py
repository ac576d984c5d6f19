"""Values checked against the router's own schemas."""

from typing import Any

import pytest

from libs.cli.admin.kinds import KEYS, PRICES, PROVIDERS, TEAMS
from libs.cli.admin.schema import instant, kind_schema, problems, types
from libs.common.errors import ProxyError
from tests.support.values.openapi import openapi, schemas


def wrong(kind: str, **fields: Any) -> list[tuple[str, str]]:
    found = problems(fields, schemas()[kind].whole)
    return [(".".join(map(str, p.path)), p.text) for p in found]


def test_what_the_api_takes_is_fine() -> None:
    policy = {"models": ["a*"], "max_output_tokens": 5, "ip_allow": ["10.0.0.0/8"]}
    assert wrong("teams", id="a", policy=policy) == []
    assert wrong("keys", name="a", expires_at="2030-01-01T00:00:00+02:00") == []
    assert wrong("keys", pools=[], team_id=None, enabled=False) == []
    budget = {"budget_usd": 0.5, "budget_tokens": None, "budget_time_zone": "UTC"}
    assert wrong("keys", name="a", **budget) == []
    assert wrong("teams", id="a", key_defaults=budget, **budget) == []
    assert wrong("providers", id="a", weight=2, provider_type="azure") == []


@pytest.mark.parametrize(
    ("fields", "path", "text"),
    [
        ({"nmae": 1}, "nmae", "unknown field; did you mean name?"),
        ({"name": 12}, "name", "12 is not a string; put it in quotes"),
        ({"name": True}, "name", "true is not a string; put it in quotes"),
        ({"name": ["a"]}, "name", "a list is not a string"),
        ({"team_id": {}}, "team_id", "a mapping is not null or a string"),
        ({"team_id": "a b"}, "team_id", "'a b' does not match ^[A-Za-z0-9_.:@-]+$"),
        ({"name": "x" * 201}, "name", "is longer than 200 characters"),
        ({"enabled": "yes"}, "enabled", "'yes' is not true or false"),
        ({"enabled": 1}, "enabled", "1 is not true or false"),
        ({"requests_per_minute": 0}, "requests_per_minute", "0 is less than 1"),
        ({"requests_per_minute": 10**13}, "requests_per_minute",
         "10000000000000 is more than 1e+12"),
        ({"requests_per_minute": 1.5}, "requests_per_minute",
         "1.5 is not a whole number or null"),
        ({"budget_usd": 0}, "budget_usd", "0 is not more than 0"),
        ({"budget_usd": 10**7}, "budget_usd", "10000000 is more than 1e+06"),
        ({"budget_tokens": 0}, "budget_tokens", "0 is less than 1"),
        ({"budget_window": "year"}, "budget_window",
         "'year' is not one of day, week, month, total"),
        ({"budget_reserve": 1}, "budget_reserve", "1 is not true or false"),
        ({"pools": "a"}, "pools", "'a' is not a list"),
        ({"pools": ["a", None]}, "pools.1", "null is not a string"),
        ({"pools": ["a"] * 101}, "pools", "has more than 100 of them"),
        ({"expires_at": "2030-01-01"}, "expires_at",
         "'2030-01-01' is not a time with a time zone, such as 2027-01-31T00:00:00Z"),
        ({"expires_at": "soon"}, "expires_at",
         "'soon' is not a time with a time zone, such as 2027-01-31T00:00:00Z"),
        ({"policy": {"modles": []}}, "policy.modles",
         "unknown field; did you mean models?"),
        ({"policy": {"max_reasoning_effort": "hihg"}}, "policy.max_reasoning_effort",
         ("'hihg' is not one of none, minimal, low, medium, high, xhigh; did you mean "
         "high?")),
        ({"policy": {"ip_allow": ["10.0.0.1/8"]}}, "policy.ip_allow.0",
         ("'10.0.0.1/8' is not an address, nor a network without host bits, such as "
         "10.1.0.0/16")),
    ],
)  # fmt: skip
def test_what_it_refuses_is_named(fields: dict[str, Any], path: str, text: str) -> None:
    assert wrong("keys", **fields) == [(path, text)]


def test_other_rules() -> None:
    assert wrong("teams", name="a") == [("", "id is missing")]
    assert wrong("models", alias="a", targets=[]) == [
        ("targets", "needs at least 1 of them")
    ]
    assert wrong("providers", id="a", weight=float("nan")) == [
        ("weight", "nan is more than 1e+06")
    ]
    assert wrong("providers", id="a", wire_api="chat") == [
        ("wire_api", "'chat' is not one of responses")
    ]
    price = {"input": 1, "cached_input": 0, "output": 1}
    assert wrong("prices", model="a", prices=[{**price, "valid_from": "2026-5"}]) == [
        ("prices.0.valid_from", "'2026-5' is not a day, such as 2027-01-31")
    ]
    assert wrong("prices", model="a", prices=[{**price, "output": -1}]) == [
        ("prices.0.output", "-1 is less than 0")
    ]
    assert list(problems(["a"], {})) == []  # not described: left to the API
    (long,) = problems("x" * 100, {"type": "string", "pattern": "^y"})
    assert long.text.startswith(f"'{'x' * 60}...' does")
    (empty,) = problems("", {"type": "string", "minLength": 1})
    assert empty.text == "is empty"


def test_types_and_defaults() -> None:
    schema = schemas()["keys"]
    assert types(schema.fields["team_id"]) == {"string", "null"}
    assert schema.default("enabled") is True
    assert schema.default("pools") == []
    assert instant("2030-01-01T00:00:00") is None


@pytest.mark.parametrize(
    "document", [{}, {"paths": {}}, {"paths": {"/admin/teams": 1}}]
)
def test_an_older_router_is_named(document: dict[str, Any]) -> None:
    with pytest.raises(ProxyError, match="upgrade its routers"):
        kind_schema(document, TEAMS)


def test_fields_of_a_creation_and_of_a_change() -> None:
    keys = kind_schema(openapi(), KEYS)
    assert "enabled" in keys.fields
    assert "enabled" not in keys.create["properties"]
    assert "api_key" in kind_schema(openapi(), PROVIDERS).fields
    prices = kind_schema(openapi(), PRICES)
    assert set(prices.fields) == {"model", "prices"}
    assert set(prices.change["properties"]) == {"prices"}
