"""The targets of a model alias, and the request that is sent there."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import AliasTarget
from services.gateway.errors import Problem
from services.gateway.routing.model_alias import (
    allowed_targets,
    check_alias,
    with_alias_model,
)

WAY = AliasTarget("fast", "local", "m-8b", "@local", frozenset({"edge", None}))


@pytest.mark.parametrize(
    ("principal", "asked"),
    [
        pytest.param(None, None, id="anybody"),
        pytest.param(None, "edge", id="anybody, its pool"),
        pytest.param(Principal(id="k"), "edge", id="a key without pools"),
        pytest.param(
            Principal(id="k", pools=("edge", "x")), None, id="one of its pools"
        ),
        pytest.param(Principal(id="k", pool_id="edge"), "other", id="pinned to it"),
    ],
)
def test_an_alias_leads_to_all_of_its_provider(
    principal: Principal | None, asked: str | None
) -> None:
    check_alias(WAY, principal, asked)


@pytest.mark.parametrize(
    ("alias", "principal", "asked", "status", "code"),
    [
        pytest.param(
            WAY, Principal(id="k", pools=("x",)), None, 403, "model_not_allowed",
            id="not of its pools",
        ),
        pytest.param(
            WAY, Principal(id="k", pool_id="x"), None, 403, "model_not_allowed",
            id="pinned elsewhere",
        ),
        pytest.param(
            WAY, Principal(id="k", pools=("edge",)), "x", 403, "pool_not_allowed",
            id="another pool than the key's",
        ),
        pytest.param(WAY, None, "x", 400, "model_not_in_pool", id="another pool"),
        pytest.param(
            AliasTarget("fast", "local", "m", "@local", frozenset()), None, None, 404,
            "model_not_found", id="no resource",
        ),
    ],
)  # fmt: skip
def test_a_pool_narrows_what_an_alias_may_lead_to(
    alias: AliasTarget,
    principal: Principal | None,
    asked: str | None,
    status: int,
    code: str,
) -> None:
    with pytest.raises(Problem) as refused:
        check_alias(alias, principal, asked)
    assert (refused.value.status, refused.value.code) == (status, code)


def test_targets_that_the_key_may_not_use_are_left_out() -> None:
    other = AliasTarget("fast", "far", "m", "@far", frozenset({"x"}))
    closed = AliasTarget("fast", "gone", "m", "@gone", frozenset())
    targets = closed, WAY, other
    assert allowed_targets(targets, None, None) == (WAY, other)
    assert allowed_targets(targets, Principal(id="k", pools=("x",)), None) == (other,)
    assert allowed_targets(targets, None, "edge") == (WAY,)
    with pytest.raises(Problem) as refused:
        allowed_targets((WAY, other), Principal(id="k", pool_id="y"), None)
    assert refused.value.code == "model_not_allowed"


@pytest.mark.parametrize("body", [b"", b'{"model":"fast"', b"[]"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        with_alias_model(body, WAY)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


@given(before=st.text(max_size=9), after=st.integers())
def test_nothing_but_the_model_changes(before: str, after: int) -> None:

    fields = {"a": before, "model": "fast", "b": after, "c": {"model": "fast"}}
    plain = json.dumps(fields).encode()
    sent = json.loads(with_alias_model(plain, WAY))
    assert sent == fields | {"model": "m-8b"}
