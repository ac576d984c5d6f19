"""Responses that change only with the program, such as the dashboard's files: with an
ETag, and compressed once."""

import hashlib

import falcon
from falcon.asgi import Request, Response

from services.router.api.compression import LEAST, coding_for, pack


class Fixed:
    """One of them."""

    def __init__(self, body: bytes, content_type: str, csp: str | None = None) -> None:
        """`csp`: its Content-Security-Policy, if it is a page."""
        self._body = body
        self._content_type = content_type
        self._csp = csp
        self._tag = hashlib.sha256(body).hexdigest()[:32]
        self._packed: dict[str, bytes] = {}  # by coding

    async def on_get(self, req: Request, resp: Response) -> None:
        # Weak: one for all codings of the body.
        resp.set_header("etag", f'W/"{self._tag}"')
        resp.set_header("vary", "accept-encoding")
        resp.cache_control = ["no-cache"]
        if self._csp is not None:
            resp.set_header("content-security-policy", self._csp)
        if {self._tag, "*"}.intersection(req.if_none_match or ()):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = self._content_type
        resp.data = self._body
        coding = coding_for(req.get_header("accept-encoding"))
        if coding is None or len(self._body) <= LEAST:
            return
        if coding not in self._packed:
            self._packed[coding] = await pack(self._body, coding)
        resp.data = self._packed[coding]
        resp.set_header("content-encoding", coding)
