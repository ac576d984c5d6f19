"""Every field of a declared one, and forms that mean the same."""

from typing import Any

import pytest

from libs.cli.admin.kinds import KEYS, MODELS, PRICES, PROVIDERS, Kind
from libs.cli.admin.wanted import as_declared, compared, wanted
from tests.support.values.openapi import schemas


def every(kind: Kind, **fields: Any) -> dict[str, Any]:
    return wanted(kind, schemas()[kind.name], fields)


def test_what_is_left_out_has_its_default() -> None:
    found = every(KEYS, name="a", requests_per_minute=5)
    assert found["requests_per_minute"] == 5
    assert (found["enabled"], found["pools"], found["policy"]) == (True, [], None)


def test_a_provider_keeps_its_address_and_credential() -> None:
    found = every(PROVIDERS, id="a", api_key_env="A")
    left_out = {"base_url", "credential_ref", "api_key", "api_key_env"}
    assert not left_out & found.keys()
    assert (found["name"], found["auth_type"]) == ("a", "bearer")
    azure = every(PROVIDERS, id="a", provider_type="azure", base_url="http://a/v1/")
    assert (azure["auth_type"], azure["base_url"]) == ("api_key", "http://a/v1")


def test_an_alias_has_targets() -> None:
    one = {"provider_id": "p", "upstream_id": "m"}
    assert every(MODELS, alias="a", **one)["targets"] == [one]
    spare = {"provider_id": "q", "upstream_id": "m", "priority": 1}
    assert every(MODELS, alias="a", targets=[spare, one])["targets"] == [one, spare]


def test_prices_are_as_those_of_the_api() -> None:
    """Which has them in the order of the database, with times and empty tiers."""
    cheap = {"input": 1, "cached_input": 0, "output": 2, "service_tier": "flex"}
    dear = {"input": 2, "cached_input": 1, "output": 4, "valid_from": "2026-05-01"}
    more = {"cached_input": 0.0, "reasoning": None}
    row = {
        "model": "m",
        "own": True,
        "prices": [
            {"service_tier": "flex", "valid_from": "1970-01-01T00:00:00.000Z",
             "input": 1.0, "output": 2.0, **more},
            {"service_tier": "", "valid_from": "2026-05-01T00:00:00.000Z",
             "input": 2.0, "output": 4.0, **more, "cached_input": 1.0},
        ],
    }  # fmt: skip
    written = every(PRICES, model="m", prices=[cheap, dear])
    stored = as_declared(PRICES, row)
    fields = schemas()["prices"].fields
    assert compared({"prices": stored["prices"]}, fields) == compared(
        {"prices": written["prices"]}, fields
    )
    assert [price["service_tier"] for price in stored["prices"]] == [None, "flex"]
    assert as_declared(KEYS, {"id": "k"}) == {"id": "k"}


@pytest.mark.parametrize(
    ("kind", "written", "stored"),
    [
        ("keys", {"expires_at": "2031-01-31T02:00:00+02:00"},
         {"expires_at": "2031-01-31T00:00:00.000Z"}),
        ("keys", {"policy": {"models": [], "ip_allow": ["10.0.0.1"]}},
         {"policy": {"ip_allow": ["10.0.0.1/32"], "max_output_tokens": None}}),
        ("keys", {"policy": {}}, {"policy": None}),
        ("models", {"targets": [{"provider_id": "p", "upstream_id": "m"}]},
         {"targets": [{"provider_id": "p", "upstream_id": "m", "weight": 1.0,
                       "priority": 0}]}),
        ("providers", {"weight": 2}, {"weight": 2.0}),
    ],
)  # fmt: skip
def test_forms_that_mean_the_same(
    kind: str, written: dict[str, Any], stored: dict[str, Any]
) -> None:
    fields = schemas()[kind].fields
    assert compared(written, fields) == compared(stored, fields)


def test_forms_that_do_not() -> None:
    fields = schemas()["keys"].fields
    assert compared({"pools": ["a", "b"]}, fields) != compared(
        {"pools": ["b", "a"]}, fields
    )
