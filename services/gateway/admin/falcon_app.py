"""The Falcon application that serves everything but /v1."""

from typing import Any

import falcon.asgi
from falcon.asgi import Request, Response

from services.gateway.admin.forwarding import RouterForwarder
from services.gateway.admin.probes import Probes
from services.gateway.errors import Problem


def control_app(
    probes: Probes, forwarder: RouterForwarder
) -> "falcon.asgi.App[Request, Response]":
    """Answers the probes, and forwards all other paths."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_error_handler(Problem, _answer_problem)
    for probe in ("healthz", "readyz", "metrics"):
        app.add_route(f"/{probe}", probes, suffix=probe)
    app.add_sink(forwarder.forward, "/")
    return app


async def _answer_problem(
    _: Request, resp: Response, problem: Problem, _params: object, **__: object
) -> None:
    resp.status = problem.status
    resp.content_type = "application/json"
    resp.data = problem.body()
    for name, value in problem.headers:
        resp.set_header(name.decode(), value.decode())
