"""Forwards the dashboard and the admin API to the router, so that clients use one
address for everything."""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx

from libs.common.browser_guard import CHECKED, CLIENT_ADDRESS, Guard, sender
from services.gateway import errors as problems
from services.gateway.content.headers import HOP_BY_HOP
from services.gateway.server.browser_guard import refused

LARGEST_BODY = 1_048_576  # bytes; no request under /admin is larger
# Origin, host and Sec-Fetch-* are checked here, because the router has another name.
_NOT_FORWARDED = {name.decode() for name in HOP_BY_HOP} | {
    "content-length",
    "host",
    "origin",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    CHECKED,
    CLIENT_ADDRESS,
}
_WITHOUT_BODY = frozenset({204, 304})
# Invalid escapes and control characters: no path of the router has them, and the HTTP
# client rejects some.
_ODD = re.compile(r"%(?![0-9A-Fa-f]{2})|%(?:[01][0-9A-Fa-f]|7[Ff])")


class ForwardedBody:
    """The router's answer, streamed. An object with `close`, because Falcon closes a
    stream with `close` and never with `aclose`."""

    def __init__(self, answer: httpx.Response) -> None:
        self._answer = answer
        self._bytes = answer.aiter_raw()  # in the coding that the client accepts

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._bytes

    async def close(self) -> None:
        await self._answer.aclose()


class RouterForwarder:
    """Forwards requests to the router."""

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
        if client := req.scope.get("client"):
            headers[CLIENT_ADDRESS], _port = client
        headers.setdefault("accept-encoding", "identity")  # else the HTTP client's own
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
            [(k, v) for k, v in answer.headers.items() if k not in _NOT_FORWARDED]
        )
        resp.stream = ForwardedBody(answer)
        if req.method != "HEAD" and answer.status_code not in _WITHOUT_BODY:
            return
        # Falcon does not close a stream that it does not send.
        await answer.aclose()
        if (length := answer.headers.get("content-length")) is not None:
            resp.set_header("content-length", length)

    def _url(self, req: Any) -> httpx.URL:
        """The router's URL with the raw path and query: if unescaped, %3F would start a
        query."""
        base, query = self._client.base_url, req.scope["query_string"]
        below = base.raw_path.rstrip(b"/") + req.scope["raw_path"]
        try:
            return base.copy_with(raw_path=below + (query and b"?" + query))
        except (httpx.InvalidURL, UnicodeDecodeError):
            raise problems.unknown_route(req.path) from None


def _routers(path: str) -> bool:
    if not {".", ".."}.isdisjoint(path.split("/")):
        return False  # the HTTP client would resolve them, possibly out of /admin
    exact = {"/", "/docs", "/openapi.json", "/favicon.ico"}
    return path in exact or path.startswith(("/admin/", "/dashboard/"))


def _odd(raw_path: bytes) -> bool:
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return True
    return _ODD.search(raw_path.decode("latin-1")) is not None
