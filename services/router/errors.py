"""What the router says of its own errors, in OpenAI's envelope. Each message
says what to do; none tells of our insides."""

import json
from typing import Any

import falcon
import structlog
from falcon.asgi import Request, Response

from libs.common.errors import NoCatalogue, ProxyError, RedisAway, StoreAway
from libs.common.store.interface import BadQuery

log = structlog.get_logger()


class Problem(ProxyError):
    """An answer that is an error."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """All four members, as SDKs expect."""
        return json.dumps(
            {
                "error": {
                    "message": self.message,
                    "type": _kind(self.status),
                    "param": self.param,
                    "code": self.code,
                }
            }
        ).encode()


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def bad_query(error: BadQuery) -> Problem:
    param = str(error).partition(":")[0]
    return Problem(400, "invalid_query", f"{error}.", param=param)


_AWAY: dict[type[Exception], tuple[str, str]] = {
    RedisAway: (
        "redis_unreachable",
        (
            "Redis does not answer. Traffic goes on from the gateways' last "
            "snapshot; see that the server at PROXY_REDIS_URL runs."
        ),
    ),
    NoCatalogue: (
        "not_ready",
        (
            "The resources are not in Redis yet. The router puts them there within "
            "seconds; try again."
        ),
    ),
    StoreAway: (
        "database_unreachable",
        (
            "The database does not answer, so history cannot be read. Nothing is "
            "lost: events wait in Redis. See that the database runs."
        ),
    ),
}


def of(error: Exception) -> Problem:
    """The answer to whatever was raised."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, BadQuery):
        return bad_query(error)
    if isinstance(error, falcon.HTTPError):
        return _of_framework(error)
    for kind, (code, message) in _AWAY.items():
        if isinstance(error, kind):
            return Problem(503, code, message)
    return Problem(
        500,
        "internal_error",
        "Something went wrong inside the router. Its log says what.",
    )


def _of_framework(error: falcon.HTTPError) -> Problem:
    status = error.status_code
    if status == 404:
        return Problem(
            404,
            "unknown_route",
            "There is nothing here. The dashboard is at /, the admin API under "
            "/admin and described at /docs.",
        )
    if status == 405:
        return Problem(
            405, "method_not_allowed", "This method is not available here; see /docs."
        )
    text = error.description or error.title or "The request cannot be understood"
    return Problem(status, "invalid_request", text)


async def say(
    req: Request | None, resp: Response | None, error: Exception, *_: Any, **__: Any
) -> None:
    """Falcon's handler for every exception."""
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
