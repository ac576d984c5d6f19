"""Refuses requests that web pages of other origins make to /v1 through a browser, and
answers CORS preflights of the allowed origins."""

from typing import Final

from libs.common.browser_guard import (
    SAFE_METHODS,
    Guard,
    Refusal,
    cors_lines,
    preflight_headers,
    sender,
)
from libs.common.headers import Header, find
from services.gateway.errors import Problem
from services.gateway.server.request import Request

_SAFE: Final = SAFE_METHODS  # found sooner than an imported name


class BrowserGuard:
    """Applies the operator's policy for browsers to the data plane."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def api(self, request: Request) -> None:
        """Checks a request. Sets `request.problem` if it is refused, and
        `request.cors` if an allowed origin may read the answer. A request without
        Origin costs two comparisons."""
        origin = request.origin
        if origin is None:
            if request.method not in _SAFE:
                return
        elif self._guard.lists(origin.decode("latin-1")):
            request.cors = cors_lines(origin)
            return
        refusal = self._guard.api(sender(request.method, request.headers))
        if refusal is not None:
            request.problem = request.problem or refused(refusal)

    def preflight(self, request: Request) -> list[Header] | None:
        """The headers of the answer to a CORS preflight of an allowed origin; None for
        any other request."""
        if not request.cors or request.method != "OPTIONS":
            return None
        headers = request.headers
        if find(headers, b"access-control-request-method") is None:
            return None
        wanted = find(headers, b"access-control-request-headers")
        return preflight_headers(wanted)


def refused(refusal: Refusal) -> Problem:
    return Problem(refusal.status, refusal.code, refusal.message)
