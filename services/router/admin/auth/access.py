"""Access to the router: requests of browsers, and admin tokens (compared in
tokens.py)."""

from typing import NamedTuple, Protocol

from falcon.asgi import Request, Response

from libs.common.admin_token import ADMIN, DEFAULT
from libs.common.browser_guard import CHECKED, CLIENT_ADDRESS, Guard, Refusal, sender
from libs.common.store.interface import ANYONE, Actor
from services.router.api.operation import ACTOR
from services.router.errors import Problem

# For load balancers and Prometheus, under any host name. They reveal no secret.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
READING = frozenset({"GET", "HEAD"})
READING_PATHS = frozenset({"/admin/route/explain"})  # by POST, without effects
LONGEST_ADDRESS = 100
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
        if refusal is not None and refusal.status == 415:
            req.context.not_json = refusal
        elif refusal is not None:
            raise _problem(refusal)

    async def process_resource(
        self, req: Request, _: Response, resource: object, _params: object
    ) -> None:
        """The content type counts last: an unknown path is 404, a method that the path
        does not have 405."""
        refusal = getattr(req.context, "not_json", None)
        if refusal is not None and hasattr(resource, f"on_{req.method.lower()}"):
            raise _problem(refusal)

    async def process_response(
        self, _: Request, resp: Response, _resource: object, _succeeded: bool
    ) -> None:
        for name, value in _EVERYWHERE.items():
            if resp.get_header(name) is None:
                resp.set_header(name, value)


def _problem(refusal: Refusal) -> Problem:
    return Problem(refusal.status, refusal.code, refusal.message)


class Holder(NamedTuple):
    """Whose token it is. A role other than admin may only read."""

    name: str
    role: str


class First(Protocol):
    """The first admin token, `default`."""

    async def accepts(self, given: bytes) -> bool:
        """Is `given` the token? Raises a `Problem` while that is unknown."""
        ...


class Named(Protocol):
    """Admin tokens with names."""

    async def holder(self, given: bytes) -> Holder | None:
        """Whose token is `given`? Raises a `Problem` while that is unknown."""
        ...


class AdminToken:
    """Falcon middleware that requires a token for all of /admin, unless `first` is
    None, and tells operations who sent the request."""

    def __init__(self, first: First | None, named: Named | None = None) -> None:
        self._first = first
        self._named = named

    async def process_request(self, req: Request, _: Response) -> None:
        if not req.path.startswith("/admin"):
            return
        holder = await self._holder(req)
        if holder is None:
            raise Problem(
                401,
                "invalid_admin_token",
                "Send an admin token as Authorization: Bearer. The first one is the "
                "value of PROXY_ADMIN_TOKEN or, if that is not set, part of the link "
                "that was printed at the first start. `responses-proxy admin-token "
                "--new` creates a new one.",
            )
        if holder.role != ADMIN and not _reads(req):
            raise Problem(
                403,
                "admin_token_may_only_read",
                f"The admin token {holder.name!r} has the role {holder.role}, which "
                "may only read. Use a token with the role admin.",
            )
        req.context[ACTOR] = _actor(req, holder)

    async def _holder(self, req: Request) -> Holder | None:
        if self._first is None:
            return Holder(ANYONE, ADMIN)
        scheme, _space, given = (req.get_header("authorization") or "").partition(" ")
        token = given.strip().encode("utf-8", "replace")
        first = await self._first.accepts(token)
        if scheme.lower() != "bearer":
            return None
        if first:
            return Holder(DEFAULT, ADMIN)
        return await self._named.holder(token) if self._named and token else None


def _reads(req: Request) -> bool:
    return req.method in READING or req.path in READING_PATHS


def _actor(req: Request, holder: Holder) -> Actor:
    peer: str | None = None
    if client := req.scope.get("client"):
        peer, _port = client
    told = None
    if req.get_header(CHECKED) is not None:
        told = req.get_header(CLIENT_ADDRESS)
    address = told[:LONGEST_ADDRESS] if told else peer
    return Actor(holder.name, address, peer, role=holder.role)
