"""`/openapi.json` and `/docs`, from the code's own models."""

import html
from dataclasses import dataclass
from typing import Any

from falcon.asgi import Request, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.router.admin.schemas import registry as registry_shapes
from services.router.admin.schemas import shapes

_REF = "#/components/schemas/{model}"
_FILTERS = ("limit", "session_id", "resource_id", "request_id", "cursor")
_PARAMETERS: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
    "bodies": {"type": "boolean", "default": True},
}
_MEANINGS = {
    "limit": "How many rows.",
    "session_id": "Only rows of this session.",
    "resource_id": "Only rows of this resource.",
    "request_id": "Only rows of this request.",
    "cursor": "`next_cursor` of the page before.",
    "id": "`x-proxy-request-id` of the answer.",
    "key_id": "`id` of the proxy key.",
    "provider_id": "`id` of the provider.",
    "alias": "The alias; it may have slashes.",
    "bodies": "`false` leaves the captured bodies out.",
}
_PROBLEMS = {
    400: "The query makes no sense; the message says which part.",
    401: "The admin token is missing or wrong.",
    403: "A page of another origin asked, or under a host name that is not allowed.",
    404: "Not stored (yet).",
    409: "It was revoked, is taken, or is in use.",
    415: "Not sent as application/json.",
    503: "Redis, the database or the health service does not answer.",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing a client can ask for."""

    method: str
    path: str
    summary: str
    answer: type[BaseModel] | None = None
    media: str = "application/json"
    query: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()
    takes: type[BaseModel] | None = None
    status: int = 200

    @property
    def admin(self) -> bool:
        return self.path.startswith("/admin")


_HISTORY = (400, 503)
OPERATIONS = (
    Operation("post", "/v1/responses", "Create a response; any OpenAI client."),
    Operation("get", "/v1/{path}", "Every other call of the API, forwarded."),
    Operation("get", "/admin/state", "What the proxy does now.", shapes.AdminState),
    Operation(
        "get",
        "/admin/ledger",
        "Every accepted request, by where its record is; do the books agree?",
        shapes.WholeLedger,
    ),
    Operation(
        "get",
        "/admin/events",
        "The same each second, as server-sent events named `state`.",
        shapes.AdminState,
        "text/event-stream",
    ),
    Operation(
        "post",
        "/admin/health/check",
        "Check every resource now.",
        shapes.Findings,
        problems=(503,),
    ),
    Operation(
        "post",
        "/admin/route/explain",
        "Where a request would go, and why. Does nothing.",
        shapes.Explained,
        takes=shapes.ExplainAsk,
        problems=(400, 503),
    ),
    Operation(
        "get",
        "/admin/sessions",
        "Sessions, last seen first.",
        shapes.SessionsPage,
        query=_FILTERS,
        problems=_HISTORY,
    ),
    Operation(
        "get",
        "/admin/requests",
        "Requests, newest first. Metadata, never bodies.",
        shapes.RequestsPage,
        query=_FILTERS,
        problems=_HISTORY,
    ),
    Operation(
        "get",
        "/admin/decisions",
        "Routing decisions, newest first.",
        shapes.DecisionsPage,
        query=_FILTERS,
        problems=_HISTORY,
    ),
    Operation(
        "get",
        "/admin/requests/{id}",
        "One request with its decisions and captured bodies.",
        shapes.RequestWithDecisions,
        query=("bodies",),
        problems=(400, 404, 503),
    ),
    Operation(
        "post",
        "/admin/keys",
        "Mint a proxy key. Its secret is shown this once.",
        shapes.MintedKey,
        takes=shapes.MintAsk,
        problems=(400, 503),
        status=201,
    ),
    Operation(
        "get",
        "/admin/keys",
        "Proxy keys, newest first, revoked ones too.",
        shapes.ProxyKeysPage,
        query=("limit", "cursor"),
        problems=_HISTORY,
    ),
    Operation(
        "get",
        "/admin/keys/{key_id}",
        "One proxy key.",
        shapes.ProxyKeyRow,
        problems=(404, 503),
    ),
    Operation(
        "patch",
        "/admin/keys/{key_id}",
        "Change a proxy key; in force within a second.",
        shapes.ProxyKeyRow,
        takes=shapes.KeyChange,
        problems=(400, 404, 409, 503),
    ),
    Operation(
        "delete",
        "/admin/keys/{key_id}",
        "Revoke a proxy key for good; in force within a second.",
        shapes.ProxyKeyRow,
        problems=(404, 503),
    ),
    Operation(
        "post",
        "/admin/providers",
        "Register a provider. Its key is sealed and never shown.",
        registry_shapes.ProviderRow,
        takes=registry_shapes.ProviderAsk,
        problems=(400, 409, 503),
        status=201,
    ),
    Operation(
        "get",
        "/admin/providers",
        "Providers, without their keys.",
        registry_shapes.ProvidersList,
        problems=(503,),
    ),
    Operation(
        "get",
        "/admin/providers/{provider_id}",
        "One provider.",
        registry_shapes.ProviderRow,
        problems=(404, 503),
    ),
    Operation(
        "patch",
        "/admin/providers/{provider_id}",
        "Change a provider, or replace its key; in force within seconds.",
        registry_shapes.ProviderRow,
        takes=registry_shapes.ProviderChange,
        problems=(400, 404, 409, 503),
    ),
    Operation(
        "delete",
        "/admin/providers/{provider_id}",
        "Delete a provider that no model alias leads to.",
        registry_shapes.ProviderRow,
        problems=(404, 409, 503),
    ),
    Operation(
        "post",
        "/admin/providers/test",
        "Ask a provider, stored or not, for its models with each of its keys.",
        registry_shapes.ProviderTested,
        takes=registry_shapes.ProviderTestAsk,
        problems=(400, 404, 503),
    ),
    Operation(
        "post",
        "/admin/models",
        "Register a model alias.",
        registry_shapes.ModelRow,
        takes=registry_shapes.ModelAsk,
        problems=(400, 409, 503),
        status=201,
    ),
    Operation(
        "get",
        "/admin/models",
        "Model aliases.",
        registry_shapes.ModelsList,
        problems=(503,),
    ),
    Operation(
        "get",
        "/admin/models/{alias}",
        "One model alias.",
        registry_shapes.ModelRow,
        problems=(404, 503),
    ),
    Operation(
        "patch",
        "/admin/models/{alias}",
        "Change a model alias; in force within seconds.",
        registry_shapes.ModelRow,
        takes=registry_shapes.ModelChange,
        problems=(400, 404, 503),
    ),
    Operation(
        "delete",
        "/admin/models/{alias}",
        "Delete a model alias.",
        registry_shapes.ModelRow,
        problems=(404, 503),
    ),
    Operation(
        "post",
        "/admin/models/test",
        "Does an alias's provider list its model?",
        registry_shapes.ModelTested,
        takes=registry_shapes.ModelTestAsk,
        problems=(400, 404, 503),
    ),
    Operation("get", "/healthz", "Is the process alive?"),
    Operation("get", "/readyz", "Can it do its job? Says what is degraded."),
    Operation("get", "/metrics", "Prometheus metrics.", media="text/plain"),
)


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    models = {o.answer for o in OPERATIONS if o.answer} | {shapes.Envelope}
    models |= {o.takes for o in OPERATIONS if o.takes}
    named = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "serialization") for model in named], ref_template=_REF
    )
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        described = _described(operation)
        paths.setdefault(operation.path, {})[operation.method] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Responses Proxy",
            "version": "1",
            "description": "The admin API. Point OpenAI clients at /v1.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": [*_in_path(operation.path), *_in_query(operation.query)],
        "responses": {
            str(operation.status): {
                "description": "OK",
                **_content(operation.answer, operation.media),
            },
            **{str(status): _problem(status) for status in _problems(operation)},
        },
    }
    if operation.takes:
        content = _content(operation.takes, "application/json")
        described["requestBody"] = {"required": True, **content}
    if operation.admin:
        described["security"] = [{"admin": []}]
    return described


def _problems(operation: Operation) -> list[int]:
    problems = set(operation.problems)
    if operation.admin:
        problems |= {401, 403}
        if operation.method != "get":
            problems.add(415)
    return sorted(problems)


def _problem(status: int) -> dict[str, Any]:
    return {
        "description": _PROBLEMS[status],
        **_content(shapes.Envelope, "application/json"),
    }


def _content(model: type[BaseModel] | None, media: str) -> dict[str, Any]:
    if model is None:
        return {}
    return {"content": {media: {"schema": {"$ref": _ref(model)}}}}


def _ref(model: type[BaseModel]) -> str:
    return _REF.format(model=model.__name__)


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [_parameter(name, "path", required=True) for name in names]


def _in_query(names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [_parameter(name, "query", required=False) for name in names]


def _parameter(name: str, place: str, *, required: bool) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": required,
        "description": _MEANINGS.get(name, ""),
        "schema": _PARAMETERS.get(name, {"type": "string"}),
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
        self._page = page()

    async def on_get(self, _: Request, resp: Response) -> None:
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("content-security-policy", self._csp)
        resp.text = self._page


def page() -> str:
    """The HTML of `/docs`."""
    described = document()
    operations = "".join(map(_operation_html, OPERATIONS))
    schemas = "".join(
        _schema_html(name, schema)
        for name, schema in described["components"]["schemas"].items()
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta name='color-scheme' content='light dark'>"
        "<title>Responses Proxy: API</title>"
        "<link rel='icon' href='/favicon.ico' type='image/svg+xml'>"
        "<link rel='stylesheet' href='/dashboard/style.css'></head><body>"
        "<header><h1>Responses Proxy: API</h1><a href='/'>Dashboard</a></header>"
        "<main><p>Point any OpenAI client's base URL at <code>/v1</code>. Paths under "
        "<code>/admin</code> need <code>Authorization: Bearer TOKEN</code>, and all "
        "that changes something <code>Content-Type: application/json</code>. For "
        "programs: "
        "<a href='/openapi.json'>openapi.json</a>.</p>"
        "<h2>Calls</h2><div class='scroll'><table><thead><tr><th scope='col'>Method"
        "</th><th scope='col'>Path</th><th scope='col'>What it does</th>"
        "<th scope='col'>Query</th><th scope='col'>Answer</th></tr></thead>"
        f"<tbody>{operations}</tbody></table></div>"
        f"<h2>Answers</h2>{schemas}</main></body></html>"
    )


def _operation_html(operation: Operation) -> str:
    answer = operation.answer.__name__ if operation.answer else ""
    link = f"<a href='#{answer}'>{answer}</a>" if answer else ""
    cells = (
        f"<code>{operation.method.upper()}</code>",
        f"<code>{html.escape(operation.path)}</code>",
        html.escape(operation.summary),
        html.escape(", ".join(operation.query)),
        link,
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _schema_html(name: str, schema: dict[str, Any]) -> str:
    fields = "".join(
        f"<tr><td><code>{html.escape(field)}</code></td>"
        f"<td>{html.escape(kind_of(part))}</td></tr>"
        for field, part in schema.get("properties", {}).items()
    )
    values = ", ".join(schema.get("enum", ()))
    table = f"<div class='scroll'><table><tbody>{fields}</tbody></table></div>"
    return (
        f"<h3 id='{html.escape(name)}'>{html.escape(name)}</h3>"
        f"<p>{html.escape(schema.get('description', ''))} {html.escape(values)}</p>"
        f"{table if fields else ''}"
    )


def kind_of(schema: dict[str, Any]) -> str:
    """A property's type in words: `string or null`, `list of Candidate`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(kind_of(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {kind_of(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
