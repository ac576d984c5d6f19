"""Tests of providers and models: the requests to the health service, and its results.
Uses the fake API of test_providers.py."""

import json
from typing import Any

import pytest

from libs.common.providers.sealing import Sealer
from tests.unit.router.admin.registry.test_providers import (
    GIVEN,
    SEALER,
    SECRET,
    Api,
    code,
    verdict,
)

MODELS = "/admin/models/test"


@pytest.fixture
def api() -> Api:
    return Api()


def wanted(api: Api) -> dict[str, Any]:
    """The requests that the health service received."""
    (order,) = api.health.wanted
    assert SECRET not in order
    return dict(json.loads(order))


def test_a_key_travels_sealed_to_be_tested(api: Api) -> None:
    told = api.ask("POST", "/test", api_key=SECRET).json
    assert (told["ok"], told["base_url"]) == (True, "https://api.openai.com/v1")
    asked = wanted(api)
    ((name, credential),) = asked["keys"]
    assert (name, asked["model"]) == ("key", None)
    assert SEALER.open(credential.removeprefix("sealed:")) == SECRET


def test_a_stored_provider_is_tested_with_each_of_its_keys(api: Api) -> None:
    api.ask("POST", id="acme", api_key="sk-a,sk-b", base_url="http://a.example/v1")
    api.health.answers = [verdict("acme-1"), verdict("acme-2", ok=False)]
    told = api.ask("POST", "/test", id="acme").json
    assert (told["ok"], told["base_url"]) == (False, "http://a.example/v1")
    assert [name for name, _ in wanted(api)["keys"]] == ["acme-1", "acme-2"]


def test_a_disabled_provider_can_be_tested(api: Api) -> None:
    api.ask("POST", **GIVEN, enabled=False)
    assert api.ask("POST", "/test", id="acme").json["ok"] is True
    assert len(wanted(api)["keys"]) == 1


def test_fields_that_are_sent_are_tested_and_not_what_is_stored(api: Api) -> None:
    api.ask("POST", **GIVEN)
    api.ask("POST", "/test", id="acme", credential_ref="env:PROVIDER_OTHER")
    assert wanted(api)["keys"] == [["acme", "env:PROVIDER_OTHER"]]


@pytest.mark.parametrize(
    ("results", "ok", "detail"),
    [
        ([verdict()], True, "the provider lists gpt"),
        (
            [verdict("a"), verdict("b", lists_model=False)],
            False,
            "the provider does not list gpt to: b",
        ),
        (
            [verdict("a", lists_model=False), verdict("b", ok=False, detail="refused")],
            False,
            "b: refused",
        ),
    ],
)
def test_a_model_is_listed_to_every_key_or_not(
    api: Api, results: list[dict[str, Any]], ok: bool, detail: str
) -> None:
    api.ask("POST", **GIVEN)
    api.health.answers = results
    told = api.ask("POST", MODELS, alias="fast").json
    assert (told["ok"], told["detail"]) == (ok, detail)
    assert (told["alias"], told["provider_id"], told["upstream_id"]) == (
        "fast", "acme", "gpt"
    )  # fmt: skip
    assert wanted(api)["model"] == "gpt"


def test_each_target_of_an_alias_is_tested(api: Api) -> None:
    api.ask("POST", **GIVEN)
    api.ask("POST", **GIVEN | {"id": "beta"})
    api.rows.targets = [
        {"provider_id": "acme", "upstream_id": "gpt"},
        {"provider_id": "beta", "upstream_id": "gpt-b"},
    ]
    api.health.answers = [verdict("key")]
    told = api.ask("POST", MODELS, alias="fast").json
    assert told["detail"] == (
        "acme: the provider lists gpt; beta: the provider lists gpt-b"
    )
    assert (told["ok"], len(told["results"])) == (True, 2)
    asked = [json.loads(order)["model"] for order in api.health.wanted]
    assert asked == ["gpt", "gpt-b"]


def test_a_model_that_is_not_registered_yet(api: Api) -> None:
    api.ask("POST", **GIVEN)
    api.health.answers = [verdict()]
    told = api.ask("POST", MODELS, provider_id="acme", upstream_id="new").json
    assert (told["ok"], told["alias"], told["upstream_id"]) == (True, None, "new")


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/test", {"id": "nobody"}, (404, "provider_not_found")),
        ("/test", {"base_url": "http://x/v1"}, (400, "invalid_request")),
        ("/test", {}, (400, "invalid_request")),
        (
            "/test",
            {"api_key": SECRET, "provider_type": "custom"},
            (400, "invalid_request"),
        ),
        (MODELS, {}, (400, "invalid_request")),
        (MODELS, {"provider_id": "acme"}, (400, "invalid_request")),
        (
            MODELS,
            {"provider_id": "nobody", "upstream_id": "gpt"},
            (404, "provider_not_found"),
        ),
    ],
)
def test_what_is_refused(
    api: Api, path: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert code(api.ask("POST", path, **body)) == expected
    assert api.health.wanted == []


def test_without_an_encryption_key_no_key_is_tested() -> None:
    api = Api(Sealer(()))
    assert code(api.ask("POST", "/test", api_key=SECRET)) == (
        400, "encryption_key_missing"
    )  # fmt: skip


def test_nobody_to_test_it(api: Api) -> None:
    api.health.away = True
    answer = api.ask("POST", "/test", api_key=SECRET)
    assert code(answer) == (503, "health_unreachable")
