"""`/openapi.json`: an OpenAPI 3.1 document, made from the declared operations."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from falcon.asgi import Request, Response
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.router.api.operation import JSON, Operation, operations
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
    "provider_id": "`id` of the provider.",
    "alias": "The alias; it may contain slashes.",
}
_PROBLEMS = {
    400: "The query or the body is invalid; the message names the field.",
    401: "The admin token is missing or wrong.",
    403: "Sent by a page of another origin, or to a host name that is not allowed.",
    404: "Not found, or not stored yet.",
    409: "Revoked, taken, or in use.",
    415: "The content type is not application/json.",
    503: "Redis, the database or the health service does not respond.",
}


def document(resources: Mapping[str, object]) -> dict[str, Any]:
    """Describes the operations of `resources`, which are keyed by their path, except
    those under `/internal`."""
    described = _BY_GATEWAY | {
        key: each
        for key, each in operations(resources).items()
        if not key[0].startswith("/internal/")
    }
    refs, schemas = models_json_schema(
        sorted(_models(described.values()), key=lambda pair: pair[0].__name__),
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
            "description": "The admin API. Point OpenAI clients at /v1.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
        },
    }


def _models(
    declared: Iterable[Operation],
) -> set[tuple[type[BaseModel], Mode]]:
    models: set[tuple[type[BaseModel], Mode]] = {(Envelope, "serialization")}
    for each in declared:
        if each.returns:
            models.add((each.returns, "serialization"))
        if each.body:
            models.add((each.body, "validation"))
    return models


def _described(path: str, method: str, each: Operation, refs: Refs) -> dict[str, Any]:
    returned = refs[each.returns, "serialization"] if each.returns else None
    described: dict[str, Any] = {
        "summary": each.summary,
        "parameters": [*_in_path(path), *_in_query(each.query)],
        "responses": {
            str(each.status): {"description": "OK", **_content(returned, each.media)},
            **{
                str(status): {
                    "description": _PROBLEMS[status],
                    **_content(refs[Envelope, "serialization"], JSON),
                }
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


def _problems(path: str, method: str, each: Operation) -> list[int]:
    problems = set(each.problems)
    if each.body or each.query:
        problems.add(400)
    if path.startswith("/admin"):
        problems |= {401, 403}
        if method != "get":
            problems.add(415)
    return sorted(problems)


def _content(schema: dict[str, Any] | None, media: str) -> dict[str, Any]:
    if schema is None:
        return {}
    return {"content": {media.partition(";")[0]: {"schema": schema}}}


def _in_path(path: str) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARAMETERS.get(name, ""),
            "schema": {"type": "string"},
        }
        for name in names
    ]


def _in_query(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    schema = model.model_json_schema() if model else {}
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": part.get("description", ""),
            "schema": {
                key: value
                for key, value in part.items()
                if key not in {"title", "description"} and value is not None
            },
        }
        for name, part in schema.get("properties", {}).items()
    ]


class OpenApi:
    """Serves a document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    async def on_get(self, _: Request, resp: Response) -> None:
        resp.media = self._document
