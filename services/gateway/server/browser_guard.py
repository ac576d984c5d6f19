"""Turns away what pages of others ask of /v1 through their visitors' browsers, and
answers browsers that ask before they send (CORS)."""

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


class BrowserGuard:
    """Knows what the operator allows."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def api(self, request: Request) -> None:
        """Look at a request. One that is refused gets its problem; answers
        to a listed origin may be read by its pages. Requests of programs pay for two
        comparisons."""
        origin = request.origin
        if origin is None:
            if request.method not in SAFE_METHODS:
                return
        elif self._guard.lists(origin.decode("latin-1")):
            request.cors = cors_lines(origin)
            return
        refusal = self._guard.api(sender(request.method, request.headers))
        if refusal is not None:
            request.problem = request.problem or refused(refusal)

    def preflight(self, request: Request) -> list[Header] | None:
        """The headers of the answer to a listed origin that asks what it may send;
        None when this is another request."""
        if not request.cors or request.method != "OPTIONS":
            return None
        headers = request.headers
        if find(headers, b"access-control-request-method") is None:
            return None
        wanted = find(headers, b"access-control-request-headers")
        return preflight_headers(wanted)


def refused(refusal: Refusal) -> Problem:
    return Problem(refusal.status, refusal.code, refusal.message)
