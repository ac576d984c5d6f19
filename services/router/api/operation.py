"""Declares an HTTP operation by the models of what it takes and returns.

    @operation(returns=ProviderRow, status=201, problems=(409, 503))
    async def on_post(self, body: ProviderAsk) -> Row:
        \"""Register a provider.\"""

`body` is the JSON body and `query` the query string, each validated by the model in
its annotation; path parameters keep their names; `resp`, if named, is Falcon's
response. What the responder returns is sent as JSON. `document` describes the same
models, and the docstring, in `/openapi.json`.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, get_type_hints

import falcon
from falcon.asgi import Request, Response
from pydantic import BaseModel, ValidationError

from services.router.errors import Problem

JSON = "application/json"
EVENTS = "text/event-stream"
LARGEST_BODY = 131_072  # bytes

Responder = Callable[..., Coroutine[Any, Any, None]]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class BodyRules:
    """How a body is read. `hint` ends the message of every error in it."""

    largest: int = LARGEST_BODY  # bytes
    required: bool = False  # an empty body is otherwise read as `{}`
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """What OpenAPI says of one operation."""

    summary: str
    returns: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    problems: tuple[int, ...] = ()
    media: str = JSON


_DEFAULT_RULES = BodyRules()
_DECLARED: dict[Any, Operation] = {}


def operation(
    *,
    returns: type[BaseModel] | None = None,
    status: int = 200,
    problems: tuple[int, ...] = (),
    media: str = JSON,
    body_rules: BodyRules = _DEFAULT_RULES,
) -> Callable[[Callable[..., Awaitable[Any]]], Responder]:
    """Makes a Falcon responder. `problems`: its statuses of errors, without those of
    validation and access."""

    def declare(responder: Callable[..., Awaitable[Any]]) -> Responder:
        hints = get_type_hints(responder)
        body, query = hints.get("body"), hints.get("query")
        takes_resp = "resp" in hints

        @wraps(responder)
        async def respond(
            self: object, req: Request, resp: Response, **given: Any
        ) -> None:
            if query is not None:
                given["query"] = _read_query(req, query)
            if body is not None:
                given["body"] = await _read_body(req, body, body_rules)
            if takes_resp:
                given["resp"] = resp
            resp.status = status
            _send(resp, await responder(self, **given), media)

        summary = " ".join((inspect.getdoc(responder) or "").split())
        _DECLARED[respond] = Operation(
            summary, returns, body, query, status, problems, media
        )
        return respond

    return declare


def operations(resources: Mapping[str, object]) -> dict[tuple[str, str], Operation]:
    """The declared operations of resources by path, keyed by path and method. A path
    is written as in OpenAPI, without Falcon's converters."""
    return {
        (path.replace(":path}", "}"), method.lower()): _DECLARED[responder]
        for path, resource in resources.items()
        for method in falcon.HTTP_METHODS
        if (responder := getattr(type(resource), f"on_{method.lower()}", None))
        in _DECLARED
    }


def invalid(param: str | None, cause: str, model: type[BaseModel]) -> Problem:
    """The error for a body that its model alone cannot reject."""
    return _invalid(param, cause, _see(model))


def _see(model: type[BaseModel]) -> str:
    return f"The fields of {model.__name__} are described at /docs."


def _invalid(param: str | None, cause: str, hint: str) -> Problem:
    where = f"{param}: " if param else ""
    return Problem(400, "invalid_request", f"{where}{cause}. {hint}", param=param)


async def _read_body(req: Request, model: type[Model], rules: BodyRules) -> Model:
    """Raises a `Problem`, which never repeats a value that was sent."""
    hint = rules.hint or _see(model)
    body = await req.stream.read(rules.largest + 1)
    if len(body) > rules.largest:
        raise _invalid(None, f"the body has more than {rules.largest} bytes", hint)
    try:
        return model.model_validate_json(body if rules.required else body or b"{}")
    except ValidationError as error:
        raise _invalid(*_first(error), hint) from None


def _read_query(req: Request, model: type[Model]) -> Model:
    """An empty parameter counts as absent: forms send their empty fields too. Unknown
    ones are ignored."""
    names = model.model_fields
    sent = {name: value for name in names if (value := req.get_param(name))}
    try:
        return model.model_validate(sent)
    except ValidationError as error:
        param, cause = _first(error)
        message = f"{param}: {cause}."
        raise Problem(400, "invalid_query", message, param=param) from None


def _first(error: ValidationError) -> tuple[str | None, str]:
    """The first error: the path of its field, and its cause."""
    first = error.errors(include_url=False, include_input=False)[0]
    cause = first["msg"].removeprefix("Value error, ").rstrip(".")
    return ".".join(map(str, first["loc"])) or None, cause


def _send(resp: Response, content: Any, media: str) -> None:
    resp.content_type = media
    resp.set_header("cache-control", "no-store")
    if isinstance(content, BaseModel):
        resp.data = content.model_dump_json().encode()
    elif isinstance(content, bytes):
        resp.data = content
    elif isinstance(content, AsyncIterator):
        resp.sse = content
        resp.set_header("x-accel-buffering", "no")  # nginx would hold events back
    else:
        resp.media = content
