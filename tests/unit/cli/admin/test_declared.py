"""What a file declares."""

from typing import Any

import pytest

from libs.cli.admin.declared import declared
from tests.support.values.openapi import schemas

ONE = {"provider_id": "p", "upstream_id": "m"}
PRICE = {"input": 1, "cached_input": 0.5, "output": 2}


def test_sections_and_labels() -> None:
    found, problems = declared({"keys": [{"name": "a"}], "teams": []}, schemas())
    assert problems == []
    assert {name: [i.label for i in items] for name, items in found.items()} == {
        "keys": ["a"],
        "teams": [],
    }
    assert found["keys"][0].path == ("keys", 0)


@pytest.mark.parametrize(
    ("document", "path", "text"),
    [
        ([], (), "is not a mapping of prices, providers, models, teams, keys"),
        ({"kyes": []}, ("kyes",), "unknown section; did you mean keys?"),
        ({"keys": None}, ("keys",), "is not a list; write [] for none"),
        ({"keys": ["a"]}, ("keys", 0), "'a' is not a mapping"),
        ({"keys": [{}]}, ("keys", 0), "name is missing"),
        ({"keys": [{"name": ""}]}, ("keys", 0), "name is missing"),
        ({"keys": [{"name": "a"}, {"name": "a"}]}, ("keys", 1, "name"),
         "'a' is declared twice"),
        ({"models": [{"alias": "a"}]}, ("models", 0),
         "give either provider_id and upstream_id, or targets"),
        ({"models": [{"alias": "a", "provider_id": "p"}]}, ("models", 0),
         "give either provider_id and upstream_id, or targets"),
        ({"models": [{"alias": "a", "targets": [ONE], **ONE}]}, ("models", 0),
         "give either provider_id and upstream_id, or targets"),
        ({"models": [{"alias": "a", "targets": [ONE, {**ONE, "weight": 2}]}]},
         ("models", 0, "targets", 1), "the same target is there twice"),
        ({"providers": [{"id": "a", "api_key": "sk-1"}]},
         ("providers", 0, "api_key"),
         "keys are not written here; give credential_ref, api_key_env or api_key_file"),
        ({"providers": [{"id": "a", "credential_ref": "PROVIDER_A"}]},
         ("providers", 0, "credential_ref"),
         "is not env:NAME, a variable of the gateways that may hold keys"),
        ({"providers": [{"id": "a", "base_url": "ftp://a"}]},
         ("providers", 0, "base_url"),
         ("is not an http(s) URL with a host. Use http(s)://HOST[:PORT][/PATH], such "
          "as https://api.openai.com/v1")),
        ({"prices": [{"prices": [PRICE]}]}, ("prices", 0), "model is missing"),
        ({"prices": [{"model": "m"}]}, ("prices", 0), "prices is missing"),
        ({"prices": [{"model": "m", "prices": []}]}, ("prices", 0, "prices"),
         "needs at least 1 of them"),
        ({"prices": [{"model": "m", "prices": [PRICE, {**PRICE, "service_tier": None,
          "valid_from": "1970-01-01"}]}]}, ("prices", 0, "prices", 1),
         "a price of the same tier and day is there twice"),
    ],
)  # fmt: skip
def test_mistakes(document: Any, path: tuple[str | int, ...], text: str) -> None:
    _, problems = declared(document, schemas())
    assert [(p.path, p.text) for p in problems] == [(path, text)]
