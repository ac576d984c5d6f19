"""`/openapi.json` and `/docs`, from the code's own models."""

import html
from typing import Any

from falcon.asgi import Request, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from libs.common.contracts import Candidate, DecisionEvent, RequestEvent, ResourceState

_QUERY = ("limit", "session_id", "resource_id", "request_id", "cursor")
_REF = "#/components/schemas/{model}"
_MODELS: tuple[type[BaseModel], ...] = (
    ResourceState,
    RequestEvent,
    DecisionEvent,
    Candidate,
)

# Method, path, what it does, query parameters, the schema of its rows.
_ROUTES: tuple[tuple[str, str, str, tuple[str, ...], str | None], ...] = (
    ("post", "/v1/responses", "Create a response; any OpenAI client.", (), None),
    ("get", "/v1/{path}", "Every other call of the API, forwarded.", (), None),
    ("get", "/admin/state", "What the proxy is doing now.", (), "ResourceState"),
    ("get", "/admin/events", "The same each second, as server-sent events.", (), None),
    ("post", "/admin/health/check", "Check every resource now.", (), None),
    ("get", "/admin/sessions", "Sessions, newest first.", _QUERY, None),
    ("get", "/admin/requests", "Requests, newest first.", _QUERY, "RequestEvent"),
    ("get", "/admin/decisions", "Decisions, newest first.", _QUERY, "DecisionEvent"),
    ("get", "/admin/requests/{id}", "One request with its decisions.", (), None),
    ("get", "/healthz", "Is the process alive?", (), None),
    ("get", "/readyz", "Can it do its job? Says what is degraded.", (), None),
    ("get", "/metrics", "Prometheus metrics.", (), None),
)


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    _, schemas = models_json_schema(
        [(model, "serialization") for model in _MODELS], ref_template=_REF
    )
    paths: dict[str, Any] = {}
    for method, path, summary, query, rows in _ROUTES:
        paths.setdefault(path, {})[method] = _operation(path, summary, query, rows)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Responses Proxy", "version": "0.1.0"},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    path: str, summary: str, query: tuple[str, ...], rows: str | None
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": summary,
        "parameters": [*_in_path(path), *_in_query(query)],
        "responses": {"200": {"description": "OK"}},
    }
    if rows:
        items = {"type": "array", "items": {"$ref": _REF.format(model=rows)}}
        name = "resources" if rows == "ResourceState" else "data"
        schema = {"type": "object", "properties": {name: items}}
        content = {"application/json": {"schema": schema}}
        operation["responses"]["200"]["content"] = content
    if path.startswith("/admin"):
        operation["security"] = [{"admin": []}]
    return operation


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [_parameter(name, "path", required=True) for name in names]


def _in_query(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [_parameter(name, "query", required=False) for name in names]


def _parameter(name: str, place: str, *, required: bool) -> dict[str, Any]:
    kind = "integer" if name == "limit" else "string"
    return {
        "name": name,
        "in": place,
        "required": required,
        "schema": {"type": kind},
    }


class OpenApi:
    def __init__(self) -> None:
        self._document = document()

    async def on_get(self, _: Request, resp: Response) -> None:
        resp.media = self._document


class Docs:
    """The same for people: one page, no script, nothing from elsewhere."""

    def __init__(self, csp: str) -> None:
        self._csp = csp
        rows = "".join(
            f"<tr><td><code>{method.upper()}</code></td><td><code>{path}</code></td>"
            f"<td>{html.escape(summary)}</td><td>{', '.join(query)}</td></tr>"
            for method, path, summary, query, _ in _ROUTES
        )
        self._page = (
            "<!doctype html><html lang='en'><meta charset='utf-8'>"
            "<meta name='viewport' content='width=device-width'>"
            "<title>Responses Proxy: API</title>"
            "<link rel='stylesheet' href='/dashboard/style.css'>"
            "<header><h1>Responses Proxy</h1><a href='/'>Dashboard</a></header>"
            "<main><p>Point any OpenAI client's base URL at <code>/v1</code>. "
            "Schemas: <a href='/openapi.json'>openapi.json</a>.</p>"
            "<div class='scroll'><table><thead><tr><th>Method</th><th>Path</th>"
            "<th>What it does</th><th>Query</th></tr></thead>"
            f"<tbody>{rows}</tbody></table></div></main></html>"
        )

    async def on_get(self, _: Request, resp: Response) -> None:
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("content-security-policy", self._csp)
        resp.text = self._page
