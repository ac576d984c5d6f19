"""The dashboard and the admin API, forwarded to the router."""

import gzip
from typing import Any, cast

import falcon.testing
import pytest
from falcon.testing.helpers import DEFAULT_HOST

from libs.common.browser_guard import CLIENT_ADDRESS, Guard
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
    router.status, router.body = 201, b'{"made":1}'
    router.headers = {"x-its": "y", "connection": "close"}
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


def test_the_router_is_told_the_clients_address_and_never_a_claimed_one() -> None:
    router = Router()
    claimed = {CLIENT_ADDRESS: "192.0.2.66"}
    for peer in ("192.0.2.1", None):
        forwarding(router).simulate_get(
            "/admin/state", headers=claimed, remote_addr=peer
        )
    told = [asked.headers.get(CLIENT_ADDRESS) for asked in router.asked]
    assert told == ["192.0.2.1", None]


def test_the_routers_coding_is_the_clients() -> None:
    router = Router()
    packed = gzip.compress(b"{}")
    router.headers, router.body = {"content-encoding": "gzip"}, packed
    result = forwarding(router).simulate_get(
        "/admin/state", headers={"accept-encoding": "gzip"}
    )
    assert router.asked[-1].headers["accept-encoding"] == "gzip"
    assert result.headers["content-encoding"] == "gzip"
    assert result.content == packed
    forwarding(router).simulate_get("/admin/state")
    assert router.asked[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
def test_an_answer_without_a_body_is_closed(method: str, status: int) -> None:
    router = Router()
    router.status = status
    router.headers = {"content-length": "7", "etag": 'W/"1"'}
    result = forwarding(router).simulate_request(method, "/")
    assert (result.status_code, result.content) == (status, b"")
    assert (result.headers["content-length"], result.headers["etag"]) == ("7", 'W/"1"')
    assert router.closed == 1
