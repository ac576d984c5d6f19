"""Access to the router: requests of browsers, and the admin token."""

from typing import Protocol

from falcon.asgi import Request, Response

from libs.common.browser_guard import CHECKED, Guard, sender
from services.router.errors import Problem

# For load balancers and Prometheus, under any host name. They reveal no secret.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
# Other pages may neither embed nor read responses.
_EVERYWHERE = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Browsers:
    """Falcon middleware that rejects requests which pages of other origins make through
    a browser. Gateways check what they forward, and mark it with a header that scripts
    cannot set."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def process_request(self, req: Request, _: Response) -> None:
        path = req.path
        if path in PROBES or req.get_header(CHECKED) is not None:
            return
        asked = sender(req.method, req.scope["headers"])
        if path.startswith("/internal/"):
            refusal = self._guard.api(asked)  # older gateways send no mark
        else:
            refusal = self._guard.admin(path, asked)
        if refusal is not None:
            raise Problem(refusal.status, refusal.code, refusal.message)

    async def process_response(
        self, _: Request, resp: Response, _resource: object, _succeeded: bool
    ) -> None:
        for name, value in _EVERYWHERE.items():
            if resp.get_header(name) is None:
                resp.set_header(name, value)


class Tokens(Protocol):
    """The current admin token."""

    async def accepts(self, given: bytes) -> bool:
        """Is `given` the token? Raises a `Problem` while that is unknown."""
        ...


class AdminToken:
    """Falcon middleware that requires the token for all of /admin, unless `tokens` is
    None."""

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    async def process_request(self, req: Request, _: Response) -> None:
        if self._tokens is None or not req.path.startswith("/admin"):
            return
        scheme, _space, given = (req.get_header("authorization") or "").partition(" ")
        token = given.strip().encode("utf-8", "replace")
        accepted = await self._tokens.accepts(token)
        if scheme.lower() != "bearer" or not accepted:
            raise Problem(
                401,
                "invalid_admin_token",
                "Send the admin token as Authorization: Bearer. It is the value of "
                "PROXY_ADMIN_TOKEN or, if that is not set, part of the link that was "
                "printed at the first start. `responses-proxy admin-token --new` "
                "creates a new one.",
            )
