"""Declares an HTTP operation by the models of what it takes and returns.

    @Operation(returns=ProviderRow, status=201, problems=(409, 503))
    async def on_post(self, body: ProviderAsk) -> Row:
        \"""Register a provider.\"""

`body` is the JSON body and `query` the query string, each validated by the model in
its annotation; path parameters keep their names; `resp`, if named, is Falcon's
response, and `actor` is who sent the request. What the responder returns is sent as
JSON. `document` describes the same models, and the docstring, in `/openapi.json`.
"""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar, get_type_hints

import falcon
from falcon.asgi import Request, Response
from pydantic import BaseModel, ValidationError

from libs.common.store.interface import ANYONE, Actor
from services.router.api.compression import UNTOUCHED
from services.router.errors import Problem

JSON = "application/json"
ACTOR = "actor"  # in the context of a request, set by the check of its token
EVENTS = "text/event-stream"
LARGEST_BODY = 131_072  # bytes

Model = TypeVar("Model", bound=BaseModel)


@dataclass
class Operation:
    """One operation, and the decorator that makes its Falcon responder."""

    summary: str = ""  # the docstring
    returns: type[BaseModel] | None = None
    status: int = 200
    problems: tuple[int, ...] = ()  # of errors, but for validation and access
    media: str = JSON
    body: type[BaseModel] | None = None  # from the annotation, as is `query`
    query: type[BaseModel] | None = None
    largest_body: int = LARGEST_BODY  # bytes
    empty_body: bytes = b""  # what an empty body stands for
    secret: bool = False  # whether the response contains one
    hint: str | None = None  # the last sentence of errors in the body
    changes: bool = False  # takes `actor`, and so If-Match

    def __call__(
        self, responder: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Coroutine[Any, Any, None]]:
        hints = get_type_hints(responder)
        self.summary = " ".join((inspect.getdoc(responder) or "").split())
        self.body, self.query = hints.get("body"), hints.get("query")
        self.changes = "actor" in hints

        @wraps(responder)
        async def respond(
            resource: object, req: Request, resp: Response, **given: Any
        ) -> None:
            if self.query is not None:
                given["query"] = _read_query(req, self.query)
            if self.body is not None:
                given["body"] = await self._read_body(req, self.body)
            if "resp" in hints:
                given["resp"] = resp
            if "actor" in hints:
                given["actor"] = _actor(req)
            resp.status = self.status
            _send(resp, await responder(resource, **given), self.media)
            if self.secret:
                resp.set_header("cache-control", UNTOUCHED)

        _DECLARED[respond] = self
        return respond

    async def _read_body(self, req: Request, model: type[Model]) -> Model:
        """Raises a `Problem`, which never repeats a value that was sent."""
        body = await req.stream.read(self.largest_body + 1)
        if len(body) > self.largest_body:
            raise _too_large(self.largest_body)
        body = body or self.empty_body
        if not body:
            raise invalid(None, "the body is empty, send an object", model, self.hint)
        try:
            return model.model_validate_json(body, strict=True)
        except ValidationError as error:
            raise invalid(*_first(error), model, self.hint) from None


def _actor(req: Request) -> Actor:
    """Who sends the request, and which version of the row they saw."""
    actor = req.context.get(ACTOR) or Actor(ANYONE)
    seen = (req.get_header("If-Match") or "*").strip()
    return actor if seen == "*" else replace(actor, expects=seen.strip('"'))


def _too_large(largest: int) -> Problem:
    return Problem(
        413, "body_too_large", f"The body has more than {largest} bytes. Send less."
    )


_DECLARED: dict[Any, Operation] = {}


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


def invalid(
    param: str | None, cause: str, model: type[BaseModel], hint: str | None = None
) -> Problem:
    """The error for an invalid body."""
    where = f"{param}: " if param else ""
    hint = hint or f"The fields of {model.__name__} are described at /docs."
    return Problem(400, "invalid_request", f"{where}{cause}. {hint}", param=param)


def _read_query(req: Request, model: type[Model]) -> Model:
    """An empty parameter counts as absent: forms send their empty fields too. Unknown
    ones are ignored."""
    names = [field.alias or name for name, field in model.model_fields.items()]
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
