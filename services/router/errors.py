"""The router's own errors, in OpenAI's envelope. Each message says what to do and
reveals no internals."""

import json
from typing import Any, TypeVar

import falcon
import structlog
from falcon.asgi import Request, Response

from libs.common.contracts.catalogue import Frozen
from libs.common.errors import NoCatalogue, ProxyError, RedisAway, StoreAway
from libs.common.store.interface import BadQuery, ChangedMeanwhile

log = structlog.get_logger()

Found = TypeVar("Found")


class ErrorBody(Frozen):
    message: str
    type: str
    param: str | None
    code: str


class Envelope(Frozen):
    """Every error, in OpenAI's format."""

    error: ErrorBody


class Problem(ProxyError):
    """An error response."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """The JSON envelope; all four members, as SDKs expect."""
        envelope = Envelope(
            error=ErrorBody(
                message=self.message,
                type=_kind(self.status),
                param=self.param,
                code=self.code,
            )
        )
        # Escaped to ASCII: a message may repeat a lone surrogate.
        return json.dumps(envelope.model_dump()).encode()


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def found(code: str, lists: str, row: Found | None) -> Found:
    """A row, or whether there was one. `code`: of the `Problem` if there is none. GET
    `lists` lists what there is."""
    if not row:
        what = code.removesuffix("_not_found").replace("_", " ")
        raise Problem(404, code, f"There is no such {what}. GET {lists} lists them.")
    return row


def bad_query(error: BadQuery) -> Problem:
    param = str(error).partition(":")[0]
    return Problem(400, "invalid_query", f"{error}.", param=param)


def changed_meanwhile() -> Problem:
    return Problem(
        409,
        "changed_meanwhile",
        "Somebody else changed this since the version in If-Match. Read it again, and "
        "send your change with its present version.",
    )


_AWAY: dict[type[Exception], tuple[str, str]] = {
    RedisAway: (
        "redis_unreachable",
        (
            "Redis does not respond. Gateways route from their last snapshot. Check "
            "that the server at PROXY_REDIS_URL is running."
        ),
    ),
    NoCatalogue: (
        "not_ready",
        (
            "The resources are not in Redis yet. The router publishes them within "
            "seconds. Try again."
        ),
    ),
    StoreAway: (
        "database_unreachable",
        (
            "The database does not respond, so history cannot be read. Nothing is "
            "lost: events wait in Redis. Check that the database is running."
        ),
    ),
}


def of(error: Exception) -> Problem:
    """The error response for an exception."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, BadQuery):
        return bad_query(error)
    if isinstance(error, ChangedMeanwhile):
        return changed_meanwhile()
    if isinstance(error, falcon.HTTPError):
        return _of_framework(error)
    for kind, (code, message) in _AWAY.items():
        if isinstance(error, kind):
            return Problem(503, code, message)
    return Problem(
        500,
        "internal_error",
        "The router failed on this request. See its log for the cause.",
    )


def _of_framework(error: falcon.HTTPError) -> Problem:
    status = error.status_code
    if status == 404:
        return Problem(
            404,
            "unknown_route",
            "Unknown path. The dashboard is at /, the admin API is under /admin and "
            "is described at /docs.",
        )
    if status == 405:
        return Problem(
            405,
            "method_not_allowed",
            "This path does not support the method. See /docs.",
        )
    text = error.description or error.title or "The request is invalid"
    return Problem(status, "invalid_request", text)


async def say(
    req: Request | None, resp: Response | None, error: Exception, *_: Any, **__: Any
) -> None:
    """Falcon's error handler, for every exception."""
    if req is None or resp is None:
        raise error
    problem = of(error)
    if problem.status == 500:
        log.error("request failed", action="request_failed", exc_info=error)
    resp.status = problem.status
    resp.content_type = "application/json"
    resp.data = problem.body()
    resp.set_header("cache-control", "no-store")
    _add_headers(resp, problem, error)


def _add_headers(resp: Response, problem: Problem, error: Exception) -> None:
    if isinstance(error, falcon.HTTPError) and error.headers:
        resp.set_headers(error.headers)  # Allow
    if problem.status == 401:
        resp.set_header("www-authenticate", "Bearer")
    if problem.status == 503:
        resp.set_header("retry-after", "2")
