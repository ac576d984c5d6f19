"""What serves everything but /v1: probes, and all else forwarded."""

from typing import Any, cast

import falcon.testing
from falcon.asgi import Request, Response

from services.gateway import errors
from services.gateway.admin.falcon_app import control_app
from services.gateway.admin.probes import Probes


class Forwarding:
    """Refuses what is not a probe."""

    async def forward(self, _: Request, __: Response, **___: object) -> None:
        raise errors.router_unreachable()


def client() -> falcon.testing.TestClient:
    nothing = cast(Any, None)
    probes = Probes(nothing, nothing, nothing, nothing, nothing)
    return falcon.testing.TestClient(control_app(probes, cast(Any, Forwarding())))


def test_a_probe_is_answered_by_the_gateway() -> None:
    result = client().simulate_get("/healthz")
    assert (result.status_code, result.json) == (200, {"status": "ok"})


def test_a_problem_is_answered_with_its_envelope_and_headers() -> None:
    result = client().simulate_get("/admin/state")
    assert (result.status_code, result.headers["retry-after"]) == (503, "2")
    assert result.headers["content-type"] == "application/json"
    assert result.json["error"]["code"] == "router_unreachable"
