"""Requests outside the data plane: probes, and the forwarded pages of the router."""

from pathlib import Path
from typing import Any, cast

import falcon.asgi
import falcon.testing
import httpx
import pytest
from falcon.testing.helpers import DEFAULT_HOST

from libs.common.browser_guard import Guard
from libs.common.proxy_keys import Principal
from libs.common.redis.shared_connection import SharedConnection
from services.gateway.admin.forwarding import LARGEST_BODY, Readiness, RouterDoor
from services.gateway.errors import Problem
from services.gateway.ledger.journal.delivery import Safekeeper
from tests.support.memory.clock import timeless
from tests.support.memory.plane import World
from tests.support.memory.twin import Twin, resource


class Router:
    """Answers, and records requests."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.answer = httpx.Response(200, json={"it": "is"})
        self.away = False
        self.client = httpx.AsyncClient(
            transport=httpx.MockTransport(self._serve), base_url="http://router"
        )

    def _serve(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused")
        self.asked.append(request)
        return self.answer


async def say_problem(
    _: Any, resp: falcon.asgi.Response, problem: Problem, _params: object, **__: object
) -> None:
    resp.status = problem.status
    resp.data = problem.body()
    for name, value in problem.headers:
        resp.set_header(name.decode(), value.decode())


def forwarding(router: Router) -> falcon.testing.TestClient:
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_error_handler(Problem, say_problem)
    guard = Guard(hosts=(DEFAULT_HOST,))
    app.add_sink(RouterDoor(router.client, guard).forward, "/")

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


# Probes ------------------------------------------------------------------------


class House:
    def __init__(self, root: Path) -> None:
        self.world = World(root, Twin(resource("a")))
        self.router = Router()
        self.redis_up = True
        self.readiness = Readiness(
            self.world.directory,
            Safekeeper(self.world.journal, cast(SharedConnection, None), "telemetry"),
            lambda: self.redis_up,
            self.router.client,
            self.world.admission,
        )

    async def asked(self, probe: str) -> tuple[int, Any]:
        app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
        app.add_route(f"/{probe}", self.readiness, suffix=probe)
        async with falcon.testing.ASGIConductor(app) as conductor:
            result = await conductor.simulate_get(f"/{probe}")
        if result.headers["content-type"].startswith("application/json"):
            return result.status_code, result.json
        return result.status_code, result.text


@timeless
async def test_a_gateway_lives_whatever_is_away(tmp_path: Path) -> None:
    assert await House(tmp_path).asked("healthz") == (200, {"status": "ok"})


@timeless
async def test_it_is_ready_once_it_knows_resources(tmp_path: Path) -> None:
    house = House(tmp_path)
    status, told = await house.asked("readyz")
    assert (status, told["ready"]) == (503, False)
    await house.world.refreshed()
    status, told = await house.asked("readyz")
    assert (status, told["ready"], told["degraded"]) == (200, True, [])
    assert (told["resources"], told["catalogue"]) == (1, "v1")
    assert told["journal_bytes"] > 0


@timeless
async def test_what_is_degraded_is_named_and_is_still_ready(tmp_path: Path) -> None:
    house = House(tmp_path)
    house.world.table.put(Principal(id="k", requests_per_minute=1))
    await house.world.refreshed()
    house.redis_up = False
    house.router.away = True
    house.world.journal.lost = 3
    house.world.journal.problem = "journal: no disk"
    status, told = await house.asked("readyz")
    assert (status, told["ready"]) == (200, True)
    assert [line.split(":")[0] for line in told["degraded"]] == [
        "redis",
        "proxy keys",
        "journal",
        "journal",
        "router",
    ]


@timeless
async def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    status, text = await House(tmp_path).asked("metrics")
    assert status == 200
    assert "proxy_requests_total" in text
