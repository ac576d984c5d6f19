"""What the list of models shows to a proxy key."""

import json
from typing import Any

import pytest

from libs.common.proxy_keys import Policy, Principal
from libs.common.routing.aliases import AliasTarget
from services.gateway.routing.visible_models import (
    VisibleModels,
    lists_models,
    model_asked_for,
)
from services.gateway.server.request import Request

FAST = (AliasTarget("fast", "acme", "m-8b", "@acme", frozenset({"edge"})),)
SHUT = (AliasTarget("shut", "gone", "m-9", "@gone", frozenset()),)
ALIASES = {"fast": FAST, "shut": SHUT}
LIST = json.dumps(
    {
        "object": "list",
        "data": [
            {"id": "gpt-5.5", "object": "model", "created": 1, "shiny": {"a": 1.50}},
            {"id": "o9", "object": "model", "created": 2},
            {"id": "fast", "object": "model", "created": 3},
        ],
        "more": None,
    }
).encode()


def key(**fields: Any) -> Principal:
    return Principal(id="k", **fields)


def policies(*globs: tuple[str, ...]) -> tuple[Policy, ...]:
    return tuple(Policy(models=each) for each in globs)


def ids(principal: Principal | None) -> list[str]:
    listed = VisibleModels(ALIASES, principal).listed(LIST)
    assert listed is not None
    return [model["id"] for model in json.loads(listed)["data"]]


@pytest.mark.parametrize(
    ("principal", "shown"),
    [
        pytest.param(None, ["gpt-5.5", "o9", "fast"], id="anybody"),
        pytest.param(key(), ["gpt-5.5", "o9", "fast"], id="a key without a policy"),
        pytest.param(
            key(policies=policies(("gpt-*",))), ["gpt-5.5"], id="globs of the key"
        ),
        pytest.param(
            key(policies=policies(("fast",))), ["fast"], id="the name of the alias"
        ),
        pytest.param(
            key(policies=policies(("m-8*",))), ["fast"], id="what the alias sends"
        ),
        pytest.param(
            key(policies=policies(("*",), ("o*",))), ["o9"], id="both must allow"
        ),
        pytest.param(
            key(pools=("other",)), ["gpt-5.5", "o9"], id="the alias is in no pool"
        ),
        pytest.param(key(pool_id="edge"), ["gpt-5.5", "o9", "fast"], id="in its pool"),
        pytest.param(
            key(policies=(Policy(endpoints=("responses",)),)),
            ["gpt-5.5", "o9", "fast"],
            id="other rules say nothing",
        ),
    ],
)
def test_a_key_sees_what_it_may_use(
    principal: Principal | None, shown: list[str]
) -> None:
    assert ids(principal) == shown


def test_what_the_upstream_says_of_a_model_stays() -> None:
    listed = VisibleModels({}, key(policies=policies(("gpt*",)))).listed(LIST)
    assert listed is not None
    assert b'{"id": "gpt-5.5", "object": "model", "created": 1' in listed
    told = json.loads(listed)
    assert told["data"][0]["shiny"] == {"a": 1.5}
    assert (told["object"], told["more"]) == ("list", None)


def test_an_alias_replaces_a_model_of_its_name() -> None:
    listed = VisibleModels(ALIASES, None).listed(LIST)
    assert listed is not None
    (alias,) = [m for m in json.loads(listed)["data"] if m["id"] == "fast"]
    assert alias == {
        "id": "fast", "object": "model", "created": 0, "owned_by": "responses-proxy",
    }  # fmt: skip


def test_a_model_without_a_name_is_shown_only_where_nothing_is_hidden() -> None:
    body = b'{"data":[{"object":"model"},{"id":null}]}'
    assert VisibleModels(ALIASES, None).listed(body) is not None
    hiding = VisibleModels({}, key(policies=policies(("*",)))).listed(body)
    assert hiding == b'{"data":[]}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"data":{}}',
        b'{"object":"list"}',
        b'{"data":[1]}',
        b'{"data":[{"id":7}]}',
        b'{"data":["\xff"]}',
        b"<html>",
    ],
)
def test_what_is_no_list_of_models(body: bytes) -> None:
    assert VisibleModels(ALIASES, None).listed(body) is None


@pytest.mark.parametrize(
    ("aliases", "principal", "differs"),
    [
        pytest.param({}, None, False, id="nobody and no alias"),
        pytest.param({}, key(pools=("x",)), False, id="no globs"),
        pytest.param({}, key(policies=policies(("*",))), True, id="globs"),
        pytest.param(ALIASES, None, True, id="aliases"),
    ],
)
def test_whether_the_list_is_changed(
    aliases: Any, principal: Principal | None, differs: bool
) -> None:
    assert VisibleModels(aliases, principal).differs is differs


@pytest.mark.parametrize(
    ("method", "target", "lists"),
    [
        ("GET", b"/v1/models", True),
        ("HEAD", b"/v1/models?limit=1", True),
        ("GET", b"/v1/models/gpt-5.5", True),
        ("GET", b"/v1//Models/", True),
        ("GET", b"/v1/%6dodels", True),
        ("GET", b"/v1/modelsx", False),
        ("DELETE", b"/v1/models/m", False),
        ("GET", b"/v1/responses/resp_1", False),
    ],
)
def test_which_requests_list_models(method: str, target: bytes, lists: bool) -> None:
    assert lists_models(Request(method, target, [])) is lists


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/models", None),
        (b"/models/", None),
        (b"/models/gpt-5.5", "gpt-5.5"),
        (b"/models/acme/m%3A1", "acme/m:1"),
        (b"//models/m", "m"),
    ],
)
def test_the_model_in_a_path(path: bytes, name: str | None) -> None:
    assert model_asked_for(path) == name
