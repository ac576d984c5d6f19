"""The admin API in a test: some of its routes, with the router's error handler."""

from collections.abc import Mapping
from typing import Any

import falcon
import falcon.asgi
import msgspec
from falcon import testing
from falcon.asgi import Request, Response

from libs.common.contracts.events import Row
from libs.common.errors import ProxyError
from services.router.api.operation import operations
from services.router.errors import say
from tests.support.values.telemetry import request_event


class Declared:
    """Falcon middleware that fails a response which its operation's model does not
    accept: OpenAPI then describes something else than is sent."""

    async def process_response(
        self, req: Request, resp: Response, resource: object, succeeded: bool
    ) -> None:
        declared = operations({"": resource}).get(("", req.method.lower()))
        if declared and declared.returns and succeeded and not resp.sse:
            sent = await resp.render_body() or b""
            declared.returns.model_validate_json(sent)


def client(routes: Mapping[str, object], *middleware: Any) -> testing.TestClient:
    """A client of an application with these resources by path."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    for kind in (Exception, ProxyError, falcon.HTTPError):
        app.add_error_handler(kind, say)
    for each in (*middleware, Declared()):
        app.add_middleware(each)
    for path, resource in routes.items():
        app.add_route(path, resource)
    return testing.TestClient(app)


def request_row(**over: Any) -> Row:
    """A row of `requests` with its decisions, as the store returns it."""
    row = msgspec.to_builtins(request_event())
    for name in ("created_at", "completed_at"):
        row[name] = str(row.pop(f"{name}_ms"))
    del row["minted"]
    return {**row, **over}


def problem(result: testing.Result) -> tuple[int, str, str | None]:
    """Status, code and param of an error in OpenAI's format."""
    error = result.json["error"]
    assert set(result.json) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return result.status_code, error["code"], error["param"]
