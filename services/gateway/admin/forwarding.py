"""What clients reach under the gateway's address besides /v1: the router's
dashboard and admin API, forwarded, so that they know one origin; and the
gateway's own probes."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import falcon
import httpx
import prometheus_client
from falcon.asgi import Request, Response

from libs.common.browser_guard import CHECKED, Guard, sender
from services.gateway import errors as problems
from services.gateway.auth.authenticator import Admission
from services.gateway.auth.browser_guard import refused
from services.gateway.content.headers import HOP_BY_HOP
from services.gateway.ledger.journal.delivery import Safekeeper
from services.gateway.routing.catalogue import Directory

LARGEST_BODY = 1_048_576  # nothing under /admin is larger
# Where a request comes from was looked at here, where its host name means something.
_NOT_FORWARDED = {name.decode() for name in HOP_BY_HOP} | {
    "content-length",
    "host",
    "origin",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    CHECKED,
}
# An escape that is none, a control character, or bytes that are no UTF-8: no path of
# the router has them, and the HTTP client refuses some.
_ODD = re.compile(r"%(?![0-9A-Fa-f]{2})|%(?:[01][0-9A-Fa-f]|7[Ff])")
_NOT_RETURNED = _NOT_FORWARDED | {"content-encoding"}


class ForwardedBody:
    """The router's answer as it comes. Falcon awaits `close`, never `aclose`
    (hotpath.md, trap 3)."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self._bytes = answer.aiter_bytes()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._bytes

    async def close(self) -> None:
        await self._answer.aclose()


class RouterDoor:
    """Everything that is not the data plane's is the router's."""

    def __init__(self, client: httpx.AsyncClient, guard: Guard) -> None:
        self._client = client
        self._guard = guard

    async def forward(self, req: Any, resp: Any, **_: object) -> None:
        if not _routers(req.path) or _odd(req.scope["raw_path"]):
            raise problems.unknown_route(req.path)
        asked = sender(req.method, req.scope["headers"])
        refusal = self._guard.admin(req.path, asked)
        if refusal is not None:
            raise refused(refusal)
        headers = {
            k: v for k, v in req.headers.items() if k.lower() not in _NOT_FORWARDED
        }
        body = await req.stream.read(LARGEST_BODY + 1)
        if len(body) > LARGEST_BODY:
            raise problems.body_too_large(LARGEST_BODY)
        request = self._client.build_request(
            req.method, self._url(req), headers=headers, content=body
        )
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.HTTPError:
            raise problems.router_unreachable() from None
        resp.status = answer.status_code
        resp.set_headers(
            [(k, v) for k, v in answer.headers.items() if k not in _NOT_RETURNED]
        )
        resp.stream = ForwardedBody(answer)

    def _url(self, req: Any) -> httpx.URL:
        """Path and query as they came. Unescaped, a %3F would begin a query."""
        base, query = self._client.base_url, req.scope["query_string"]
        below = base.raw_path.rstrip(b"/") + req.scope["raw_path"]
        try:
            return base.copy_with(raw_path=below + (query and b"?" + query))
        except (httpx.InvalidURL, UnicodeDecodeError):
            raise problems.unknown_route(req.path) from None


def _routers(path: str) -> bool:
    if not {".", ".."}.isdisjoint(path.split("/")):
        return False  # the HTTP client would take them out, and leave /admin
    exact = {"/", "/docs", "/openapi.json", "/favicon.ico"}
    return path in exact or path.startswith(("/admin/", "/dashboard/"))


def _odd(raw_path: bytes) -> bool:
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return True
    return _ODD.search(raw_path.decode("latin-1")) is not None


class Readiness:
    """`/healthz`, `/readyz`."""

    def __init__(
        self,
        directory: Directory,
        safekeeper: Safekeeper,
        redis_up: Callable[[], bool],
        client: httpx.AsyncClient,
        admission: Admission,
    ) -> None:
        self._admission = admission
        self._directory = directory
        self._safekeeper = safekeeper
        self._redis_up = redis_up
        self._client = client

    async def on_get_healthz(self, _: Request, resp: Response) -> None:
        resp.media = {"status": "ok"}

    async def on_get_readyz(self, _: Request, resp: Response) -> None:
        """Ready while requests can be routed, be it from the last snapshot."""
        degraded = []
        if not self._redis_up():
            degraded.append("redis: unreachable, routing from the last snapshot")
            if self._admission.limits:
                degraded.append("proxy keys: limits per minute are not enforced")
        degraded += self._journal_problems()
        if not await self._router_answers():
            degraded.append("router: unreachable")
        if not self._admission.ready:
            degraded.append("proxy keys: not known yet")
        ready = self._directory.known and self._admission.ready
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.media = {
            "ready": ready,
            "degraded": degraded,
            "outbox": len(self._safekeeper),
            "journal_bytes": self._safekeeper.journal.size_bytes,
            "resources": len(self._directory.targets),
            "catalogue": self._directory.version,
        }

    def _journal_problems(self) -> list[str]:
        journal = self._safekeeper.journal
        problems = [journal.problem] if journal.problem else []
        if journal.lost:
            problems.append(f"journal: full, {journal.lost} events lost")
        if journal.corrupt:
            problems.append(
                f"journal: {journal.corrupt} corrupt records of a dead gateway skipped"
            )
        return problems

    async def on_get_metrics(self, _: Request, resp: Response) -> None:
        resp.content_type = prometheus_client.CONTENT_TYPE_LATEST
        resp.data = prometheus_client.generate_latest()

    async def _router_answers(self) -> bool:
        try:
            answer = await self._client.get("/healthz", timeout=1.0)
        except httpx.HTTPError:
            return False
        return answer.is_success
