"""Who may use the admin API: what of browsers is served, and who has the token."""

from typing import Protocol

from falcon.asgi import Request, Response

from libs.common.browser_guard import CHECKED, Guard, sender
from services.router.errors import Problem

# For balancers and Prometheus, by whatever name. They show no secret.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
# Answers are for the page that asked; none is shown inside, or read by, another.
_EVERYWHERE = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Browsers:
    """Falcon middleware: turns away what pages of others ask through their visitors'
    browsers. Gateways have looked at what they forward, and say so with a header that
    no script can set."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    async def process_request(self, req: Request, _: Response) -> None:
        path = req.path
        if path in PROBES or req.get_header(CHECKED) is not None:
            return
        asked = sender(req.method, req.scope["headers"])
        if path.startswith("/internal/"):
            refusal = self._guard.api(asked)  # an older gateway's, by any host name
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
    """Knows the token in force."""

    async def accepts(self, given: bytes) -> bool:
        """Is it that? Raises a `Problem` while nobody knows."""
        ...


class AdminToken:
    """Falcon middleware: everything under /admin needs the token, unless there shall
    be none."""

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
                "PROXY_ADMIN_TOKEN, else in the link that was printed at the first "
                "start; `responses-proxy admin-token --new` makes another one.",
            )
