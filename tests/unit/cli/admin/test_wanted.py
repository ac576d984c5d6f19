"""Every field of a declared one, and forms that mean the same."""

from typing import Any

import pytest

from libs.cli.admin.kinds import KEYS, MODELS, PROVIDERS, Kind
from libs.cli.admin.wanted import compared, wanted
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
