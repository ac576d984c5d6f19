"""The dashboard and the admin API, forwarded to the router."""

from typing import Any, cast

import falcon.testing
import httpx
import pytest
from falcon.testing.helpers import DEFAULT_HOST

from libs.common.browser_guard import Guard
from services.gateway.admin.falcon_app import control_app
from services.gateway.admin.forwarding import LARGEST_BODY, RouterForwarder
from services.gateway.admin.probes import Probes
from tests.support.memory.router import Router


def forwarding(router: Router) -> falcon.testing.TestClient:
    nothing = cast(Any, None)
    probes = Probes(nothing, nothing, nothing, nothing, nothing)
    guard = Guard(hosts=(DEFAULT_HOST,))
    app = control_app(probes, RouterForwarder(router.client, guard))

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        # The gateway's server gives a list of pairs, Falcon's client iterators.
        if "headers" in scope:
            scope = scope | {"headers": [tuple(pair) for pair in scope["headers"]]}
        await app(scope, receive, send)

    told = {"content-type": "application/json"}
    return falcon.testing.TestClient(cast(Any, serve), headers=told)


def test_what_is_the_routers_is_forwarded_and_comes_back() -> None:
    router = Router()
    router.answer = httpx.Response(
        201, headers={"x-its": "y", "connection": "close"}, content=b'{"made":1}'
    )
    result = forwarding(router).simulate_post(
        "/admin/keys",
        query_string="a=b&c",
        body="{}",
        headers={"authorization": "Bearer admin", "connection": "x"},
    )
    (asked,) = router.asked
    assert (asked.method, str(asked.url)) == ("POST", "http://router/admin/keys?a=b&c")
    assert asked.content == b"{}"
    assert asked.headers["authorization"] == "Bearer admin"
    assert asked.headers["host"] == "router"
    assert (result.status_code, result.content) == (201, b'{"made":1}')
    assert result.headers["x-its"] == "y"
    assert "connection" not in result.headers


@pytest.mark.parametrize(
    ("path", "forwarded"),
    [
        ("/", True),
        ("/docs", True),
        ("/openapi.json", True),
        ("/favicon.ico", True),
        ("/admin/state", True),
        ("/dashboard/app.js", True),
        ("/internal/owners", False),
        ("/admin/../internal/owners", False),
        ("/admin/./x", False),
        ("/adminx", False),
        ("/healthz/x", False),
    ],
)
def test_nothing_else_of_the_routers_can_be_reached(path: str, forwarded: bool) -> None:
    router = Router()
    result = forwarding(router).simulate_get(path)
    assert (len(router.asked) == 1) is forwarded
    if not forwarded:
        assert result.status_code == 404
        assert result.json["error"]["code"] == "unknown_route"


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        ({"host": "rebound.test"}, 403, "host_not_allowed"),
        ({"headers": {"origin": "http://evil.test"}}, 403, "origin_not_allowed"),
        ({"headers": {"content-type": "a/b"}}, 415, "unsupported_media_type"),
    ],
    ids=["another host", "another origin", "no JSON"],
)
def test_what_pages_of_others_ask_is_not_forwarded(
    told: dict[str, Any], status: int, code: str
) -> None:
    router = Router()
    result = forwarding(router).simulate_post("/admin/x", **told)
    assert (result.status_code, result.json["error"]["code"]) == (status, code)
    assert router.asked == []


def test_a_body_that_is_too_large_is_not_forwarded() -> None:
    router = Router()
    result = forwarding(router).simulate_post("/admin/x", body="x" * (LARGEST_BODY + 1))
    assert (result.status_code, router.asked) == (413, [])


def test_a_router_that_is_away_is_said_so() -> None:
    router = Router()
    router.away = True
    result = forwarding(router).simulate_get("/admin/state")
    assert result.status_code == 503
    assert result.json["error"]["code"] == "router_unreachable"
    assert result.headers["retry-after"] == "2"
