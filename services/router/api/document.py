"""`/openapi.json`: an OpenAPI 3.1 document, made from the declared operations."""

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.router.api.fixed import Fixed
from services.router.api.operation import EVENTS, JSON, Operation, operations
from services.router.errors import Envelope

Mode = Literal["validation", "serialization"]
Refs = Mapping[tuple[Any, Mode], dict[str, Any]]

_BY_GATEWAY = {
    ("/v1/responses", "post"): Operation("Create a response; any OpenAI client."),
    ("/v1/{path}", "get"): Operation("Every other call of the API, forwarded."),
}
_PATH_PARAMETERS = {
    "id": "`x-proxy-request-id` of the response.",
    "key_id": "`id` of the proxy key.",
    "team_id": "`id` of the team.",
    "name": "`name` of the admin token.",
    "provider_id": "`id` of the provider.",
    "alias": "The alias; it may contain slashes.",
}
_PROBLEMS = {
    400: "The query or the body is invalid; the message names the field.",
    401: "The admin token is missing or wrong.",
    403: "The admin token may only read; or the request was sent by a page of another "
    "origin, or to a host name that is not allowed.",
    404: "Not found, or not stored yet.",
    409: "Revoked, taken, or in use.",
    413: "The body is too large.",
    415: "The content type is not application/json.",
    503: "Redis, the database or the health service does not respond.",
}


def document(resources: Mapping[str, object]) -> dict[str, Any]:
    """Describes the operations of `resources`, which are keyed by their path, except
    those under `/internal`."""
    described = _BY_GATEWAY | operations(
        {p: r for p, r in resources.items() if not p.startswith("/internal/")}
    )
    models: set[tuple[type[BaseModel], Mode]] = {(Envelope, "serialization")}
    for each in described.values():
        models |= {(each.returns, "serialization")} if each.returns else set()
        models |= {(each.body, "validation")} if each.body else set()
    refs, schemas = models_json_schema(
        sorted(models, key=lambda pair: pair[0].__name__),
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, Any] = {}
    for (path, method), each in described.items():
        paths.setdefault(path, {})[method] = _described(path, method, each, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Responses Proxy",
            "version": "1",
            "description": "Point any OpenAI client's base URL at /v1. The admin API, "
            "below /admin, needs the admin token as Authorization: Bearer; writes need "
            "Content-Type: application/json.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
        },
    }


def _described(path: str, method: str, each: Operation, refs: Refs) -> dict[str, Any]:
    returned = refs[each.returns, "serialization"] if each.returns else None
    problem = _content(refs[Envelope, "serialization"], JSON)
    described: dict[str, Any] = {
        "summary": each.summary,
        "tags": [_tag(path)],
        "parameters": [
            *_in_path(path),
            *_in_query(each.query),
            *(_IF_MATCH if each.changes and method in ("patch", "delete") else ()),
        ],
        "responses": {
            str(each.status): {"description": "OK", **_content(returned, each.media)},
            **{
                str(status): {"description": _PROBLEMS[status], **problem}
                for status in _problems(path, method, each)
            },
        },
    }
    if each.body:
        content = _content(refs[each.body, "validation"], JSON)
        described["requestBody"] = {"required": True, **content}
    if path.startswith("/admin"):
        described["security"] = [{"admin": []}]
    return described


def _tag(path: str) -> str:
    """What an operation is about, as a heading of the documentation."""
    first, *rest = path.strip("/").split("/")
    if first == "admin":
        return rest[0]
    return "responses" if first == "v1" else "probes"


def _problems(path: str, method: str, each: Operation) -> list[int]:
    problems = set(each.problems)
    if each.body or each.query:
        problems.add(400)
    if each.body:
        problems.add(413)
    if each.changes and method in ("patch", "delete"):
        problems.add(409)
    if path.startswith("/admin"):
        problems |= {401, 403, 503}  # 503: the admin token may be in SQL
        if method != "get":
            problems.add(415)
    return sorted(problems)


def _content(schema: dict[str, Any] | None, media: str) -> dict[str, Any]:
    if schema is None:
        return {}
    if media == EVENTS:
        schema = _event_of(schema)
    return {"content": {media.partition(";")[0]: {"schema": schema}}}


def _event_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Each event, whose data is JSON of `schema`."""
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": schema}
    named = {"event": {"type": "string"}, "data": data}
    return {"type": "object", "required": ["event", "data"], "properties": named}


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        _parameter(name, "path", {"type": "string"}, _PATH_PARAMETERS.get(name, ""))
        for name in names
    ]


def _in_query(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    properties = model.model_json_schema()["properties"] if model else {}
    parameters = []
    for name, part in properties.items():
        rest = {key: value for key, value in part.items() if value is not None}
        text, _ = rest.pop("description", ""), rest.pop("title", None)
        described = _parameter(name, "query", rest, text)
        parameters.append({**described, "allowEmptyValue": True})  # as absent
    return parameters


def _parameter(name: str, place: str, schema: Any, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
    }


_IF_MATCH = (
    _parameter(
        "If-Match",
        "header",
        {"type": "string"},
        "`version` of the row that was seen: 409 `changed_meanwhile` if it is another "
        "one by now.",
    ),
)


def open_api(document: Mapping[str, Any]) -> Fixed:
    """Serves a document."""
    return Fixed(json.dumps(document).encode(), JSON)
