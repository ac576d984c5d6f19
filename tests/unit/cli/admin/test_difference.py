"""The difference between a declaration and the rows of the API."""

from typing import Any

import pytest

from libs.cli.admin.declared import declared
from libs.cli.admin.difference import Change, Difference, Scope
from tests.support.values.openapi import schemas

PROVIDER = {
    "id": "acme", "name": "acme", "provider_type": "custom", "base_url": "http://a/v1",
    "wire_api": "responses", "auth_type": "bearer", "api_key_configured": False,
    "credential_ref": "env:PROVIDER_A", "pool_id": None, "account_id": None,
    "weight": 1.0, "enabled": True, "resources": ["acme"],
}  # fmt: skip
TARGET = {"provider_id": "acme", "upstream_id": "m", "weight": 1.0, "priority": 0}
MODEL = {"alias": "fast", "provider_id": "acme", "upstream_id": "m",
         "targets": [TARGET], "enabled": True}  # fmt: skip
TEAM = {
    "id": "red",
    "name": "",
    "policy": {"models": ["a*"], "ip_allow": []},
    "keys": 1,
}
KEY: dict[str, Any] = {
    "id": "key_1", "name": "ci", "prefix": "rpx_1", "team_id": "red", "pool_id": None,
    "pools": [], "expires_at": "2031-01-31T00:00:00.000Z", "requests_per_minute": 5,
    "tokens_per_minute": None, "policy": None, "enabled": True, "revoked_at": None,
}  # fmt: skip
PRICE = {"input": 2.0, "cached_input": 0.2, "output": 8.0, "reasoning": None,
         "service_tier": "", "valid_from": "1970-01-01T00:00:00.000Z"}  # fmt: skip
PRICES = {"model": "m", "own": True, "prices": [PRICE]}
OF_FILE = {"model": "of-file", "own": False, "prices": [PRICE]}
ROWS = {
    "prices": [PRICES, OF_FILE],
    "providers": [PROVIDER],
    "models": [MODEL],
    "teams": [TEAM],
    "keys": [KEY],
}
ACME = {"id": "acme", "provider_type": "custom", "base_url": "http://a/v1/",
        "credential_ref": "env:PROVIDER_A"}  # fmt: skip
FAST = {"alias": "fast", "provider_id": "acme", "upstream_id": "m"}
RED = {"id": "red", "policy": {"models": ["a*"]}}
CI = {"name": "ci", "team_id": "red", "requests_per_minute": 5,
      "expires_at": "2031-01-31T01:00:00+01:00"}  # fmt: skip
COSTS = {"model": "m", "prices": [{"input": 2, "cached_input": 0.2, "output": 8}]}
SAME = {
    "prices": [COSTS],
    "providers": [ACME],
    "models": [FAST],
    "teams": [RED],
    "keys": [CI],
}
PRUNE = Scope(prune=True)


def difference(document: Any, rows: Any = ROWS, scope: Scope = PRUNE) -> Difference:
    declaration, problems = declared(document, schemas())
    assert problems == []
    return Difference(declaration, rows, schemas(), scope)


def steps(found: Difference) -> list[tuple[str, str, str]]:
    assert found.problems() == []
    return [(str(c.action), c.kind.name, c.label) for c in found.changes()]


def only(found: Difference) -> Change:
    assert found.problems() == []
    (change,) = found.changes()
    return change


def test_nothing_differs() -> None:
    assert steps(difference(SAME)) == []


def test_from_nothing_in_order_and_back() -> None:
    nothing: dict[str, list[Any]] = {name: [] for name in ROWS}
    assert steps(difference(SAME, nothing)) == [
        ("create", "prices", "m"),
        ("create", "providers", "acme"),
        ("create", "models", "fast"),
        ("create", "teams", "red"),
        ("create", "keys", "ci"),
    ]
    assert steps(difference(nothing)) == [
        ("revoke", "keys", "ci"),
        ("delete", "teams", "red"),
        ("delete", "models", "fast"),
        ("delete", "providers", "acme"),
        ("delete", "prices", "m"),
    ]
    assert steps(difference(nothing, scope=Scope())) == []


def test_a_section_that_is_absent_is_not_pruned() -> None:
    assert steps(difference({"keys": []})) == [("revoke", "keys", "ci")]


def test_prices_of_a_model_are_replaced_together() -> None:
    dear = {"input": 3, "cached_input": 0.2, "output": 8, "service_tier": "priority"}
    change = only(difference({"prices": [{**COSTS, "prices": [dear]}]}))
    assert (change.id, change.fields) == ("m", {"prices": [dear]})
    assert change.before["prices"][0]["service_tier"] is None


def test_prices_of_the_price_file_can_be_replaced_but_not_deleted() -> None:
    assert steps(difference({"prices": [COSTS, {**COSTS, "model": "of-file"}]})) == [
        ("create", "prices", "of-file")
    ]


def test_what_the_file_leaves_out_gets_its_default() -> None:
    change = only(difference({"keys": [{"name": "ci", "requests_per_minute": 6}]}))
    assert change.fields == {
        "requests_per_minute": 6,
        "team_id": None,
        "expires_at": None,
    }
    assert change.before["requests_per_minute"] == 5
    assert change.id == "key_1"


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        pytest.param({}, {"requests_per_minute": 5}, id="as the team of the proxy"),
        pytest.param(
            {"teams": [{**RED, "key_defaults": {"pools": ["a"]}}]},
            {"pools": ["a"], "requests_per_minute": None},
            id="as the team of the file",
        ),
    ],
)
def test_a_key_has_what_its_team_gives_it(
    document: dict[str, Any], fields: dict[str, Any]
) -> None:
    """Otherwise a second run would take away what the API gave to a new key."""
    team = {**TEAM, "key_defaults": {"requests_per_minute": 5, "pools": []}}
    ci = {name: value for name, value in CI.items() if name != "requests_per_minute"}
    rows = {**ROWS, "teams": [team], "keys": [{**KEY, "requests_per_minute": 7}]}
    found = difference({**document, "keys": [ci]}, rows, Scope())
    (change,) = [each for each in found.changes() if each.kind.name == "keys"]
    assert change.fields == fields


def test_a_creation_sends_what_is_given() -> None:
    new = {"name": "new", "enabled": False, "pools": ["a"], "team_id": None}
    change = only(difference({"keys": [new]}, scope=Scope()))
    assert change.fields == {"name": "new", "pools": ["a"]}
    assert change.later == {"enabled": False}  # a creation does not take it
    enabled = only(
        difference({"keys": [{"name": "b", "enabled": True}]}, scope=Scope())
    )
    assert enabled.later == {}


def test_targets_of_an_alias() -> None:
    two = {"alias": "fast", "targets": [TARGET, {**TARGET, "upstream_id": "n"}]}
    change = only(difference({"models": [two]}))
    assert change.fields == {"targets": two["targets"]}


def test_a_revoked_key_does_not_count() -> None:
    rows = {**ROWS, "keys": [{**KEY, "revoked_at": "2026-01-01T00:00:00Z"}]}
    assert steps(difference({"keys": [CI]}, rows)) == [("create", "keys", "ci")]


def test_a_reference_is_sent_again_with_a_new_address() -> None:
    moved = {**ACME, "base_url": "http://b/v1"}
    change = only(difference({"providers": [moved]}))
    assert change.fields == {
        "base_url": "http://b/v1",
        "credential_ref": "env:PROVIDER_A",
    }


@pytest.mark.parametrize(
    ("row", "more", "scope", "sends"),
    [
        ({"api_key_configured": True, "credential_ref": None}, {}, Scope(), False),
        ({"api_key_configured": True, "credential_ref": None}, {},
         Scope(send_keys=True), True),
        ({"api_key_configured": True, "credential_ref": None},
         {"base_url": "http://b/v1"}, Scope(), True),
        ({}, {}, Scope(), True),  # instead of the reference
    ],
)  # fmt: skip
def test_when_a_key_is_sent(
    row: dict[str, Any], more: dict[str, Any], scope: Scope, sends: bool
) -> None:
    item = {k: v for k, v in ACME.items() if k != "credential_ref"} | more
    rows = {**ROWS, "providers": [{**PROVIDER, **row}]}
    found = difference({"providers": [{**item, "api_key_env": "A"}]}, rows, scope)
    changes = found.changes()
    assert found.problems() == []
    assert [c.key_of is not None for c in changes] == ([True] if sends else [])
    assert "api_key_env" not in repr([c.fields for c in changes])


@pytest.mark.parametrize(
    ("document", "rows", "path", "text"),
    [
        ({"keys": [CI]}, {"keys": [KEY, {**KEY, "id": "key_2"}]}, ("keys", 0, "name"),
         "the proxy has 2 keys of the name 'ci'; rename or revoke all but one"),
        ({"providers": [ACME, {"id": "new"}]}, {}, ("providers", 1),
         ("a new provider needs its key; give credential_ref, api_key_env or "
         "api_key_file")),
        ({"providers": [{"id": "acme", "base_url": "http://b"}]}, {},
         ("providers", 0, "base_url"),
         ("its key was given for another address, http://a/v1; give credential_ref, "
         "api_key_env or api_key_file")),
        ({"models": [{**FAST, "provider_id": "acne"}]}, {}, ("models", 0),
         "there is no provider 'acne'; did you mean acme?"),
        ({"providers": []}, {}, ("providers",),
         "provider acme would be deleted, but model alias fast uses it"),
        ({"teams": []}, {}, ("teams",),
         "team red would be deleted, but key ci uses it"),
        ({"teams": [], "keys": [CI]}, {}, ("teams",),
         "team red would be deleted, but key ci uses it"),
    ],
)  # fmt: skip
def test_why_a_file_cannot_be_applied(
    document: Any, rows: Any, path: tuple[str | int, ...], text: str
) -> None:
    found = difference(document, {**ROWS, **rows}).problems()
    assert [(p.path, p.text) for p in found] == [(path, text)]


def test_a_model_cannot_use_a_provider_that_is_pruned() -> None:
    found = difference({"providers": [], "models": [FAST]}).problems()
    assert found[0].text == "there is no provider 'acme'"


def test_duplicates_that_the_file_does_not_name_are_revoked() -> None:
    rows = {**ROWS, "keys": [KEY, {**KEY, "id": "key_2"}]}
    assert len(steps(difference({"keys": []}, rows))) == 2
