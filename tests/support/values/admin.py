"""The admin API in a test: some of its routes, with the router's error handler."""

from collections.abc import Mapping
from typing import Any

import falcon
import falcon.asgi
from falcon import testing

from libs.common.errors import ProxyError
from services.router.errors import say


def client(routes: Mapping[str, object], *middleware: Any) -> testing.TestClient:
    """A client of an application with these resources by path."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    for kind in (Exception, ProxyError, falcon.HTTPError):
        app.add_error_handler(kind, say)
    for each in middleware:
        app.add_middleware(each)
    for path, resource in routes.items():
        app.add_route(path, resource)
    return testing.TestClient(app)


def problem(result: testing.Result) -> tuple[int, str, str | None]:
    """Status, code and param of an error in OpenAI's format."""
    error = result.json["error"]
    assert set(result.json) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return result.status_code, error["code"], error["param"]
