"""The targets of a model alias, and the request that is sent there."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.bodies.hints import Hints
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import Way
from services.gateway.errors import Problem
from services.gateway.proxy.context import Exchange
from services.gateway.routing.model_alias import follow, splice, spliced
from services.gateway.server.request import Request

WAY = Way("fast", "local", "m-8b", "@local", frozenset({"edge", None}))


def exchange(body: bytes = b"{}", **hints: str) -> Exchange:
    headers = [(b"content-encoding", b"zstd"), (b"x", b"y")]
    request = Request("POST", b"/v1/responses", headers)
    request.body = body
    made = Exchange(request, "gw")
    made.take(Hints(model="fast", **hints))  # type: ignore[arg-type]
    return made


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
    made = exchange(session_id="s")
    session = made.session
    follow(made, WAY, principal, asked)
    assert (made.hints.pool_id, made.hints.model) == ("@local", "m-8b")
    assert made.record.upstream_model == "m-8b"
    assert made.record.model == "fast"
    assert made.session not in ("", session)  # a home of its own at each provider
    assert made.record.proxy_key_id == (principal.id if principal else None)


def test_without_a_session_there_is_no_home() -> None:
    made = exchange()
    follow(made, WAY, None, None)
    assert made.session == ""


@pytest.mark.parametrize(
    ("way", "principal", "asked", "status", "code"),
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
            Way("fast", "local", "m", "@local", frozenset()), None, None, 404,
            "model_not_found", id="no resource",
        ),
    ],
)  # fmt: skip
def test_a_pool_narrows_what_an_alias_may_lead_to(
    way: Way, principal: Principal | None, asked: str | None, status: int, code: str
) -> None:
    made = exchange()
    with pytest.raises(Problem) as refused:
        follow(made, way, principal, asked)
    assert (refused.value.status, refused.value.code) == (status, code)
    assert made.way is way  # the ledger knows what was asked


def test_what_came_plain_keeps_its_headers() -> None:
    made = exchange(b'{"model":"fast"}')
    splice(made, WAY, made.body)
    assert made.body == b'{"model":"m-8b"}'
    assert (b"content-encoding", b"zstd") in made.headers


def test_what_came_packed_leaves_as_it_was_opened() -> None:
    made = exchange(b"packed")
    splice(made, WAY, b'{"model":"fast"}')
    assert made.body == b'{"model":"m-8b"}'
    assert made.headers == [(b"x", b"y")]


@pytest.mark.parametrize("body", [b"", b'{"model":"fast"', b"[]"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        spliced(body, WAY)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


@given(before=st.text(max_size=9), after=st.integers())
def test_nothing_but_the_model_changes(before: str, after: int) -> None:

    fields = {"a": before, "model": "fast", "b": after, "c": {"model": "fast"}}
    plain = json.dumps(fields).encode()
    sent = json.loads(spliced(plain, WAY))
    assert sent == fields | {"model": "m-8b"}
