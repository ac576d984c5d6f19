"""Compresses responses of the router, by what the client accepts. Server-sent events
stay as they are, and so does what says `no-transform`: the length of a compressed
response tells something of a secret in it."""

import asyncio
import gzip

import zstandard
from falcon.asgi import Request, Response

LEAST = 1_024  # bytes; compressing less saves no packet
LARGE = 262_144  # bytes; compressed in a thread, because it takes milliseconds
UNTOUCHED = "no-store, no-transform"  # Cache-Control of a response with a secret
_LEVEL = 5  # of gzip; higher ones take several times as long
_CODINGS = ("zstd", "gzip")  # the best first


def coding_for(accepted: str | None) -> str | None:
    """The coding for an Accept-Encoding; None: none. Weights of 0 count, others do
    not: every client that accepts zstd can read it."""
    weights = dict(map(_weighed, (accepted or "").lower().split(",")))
    for coding in _CODINGS:
        if weights.get(coding, weights.get("*", False)):
            return coding
    return None


def _weighed(part: str) -> tuple[str, bool]:
    """A coding, and whether it is accepted."""
    coding, _, weight = part.partition(";")
    name, _, value = weight.replace(" ", "").partition("=")
    refused = name == "q" and not value.strip("0.")
    return coding.strip(), not refused


def packed(body: bytes, coding: str) -> bytes:
    """`body` in a coding of `coding_for`."""
    if coding == "zstd":
        return zstandard.compress(body)
    return gzip.compress(body, _LEVEL, mtime=0)


async def pack(body: bytes, coding: str) -> bytes:
    """The same; a large body blocks no other request."""
    if len(body) < LARGE:
        return packed(body, coding)
    return await asyncio.to_thread(packed, body, coding)


class Compression:
    """Falcon middleware that compresses bodies of more than LEAST bytes."""

    async def process_response(
        self, req: Request, resp: Response, _resource: object, _succeeded: bool
    ) -> None:
        if resp.sse is not None or resp.stream is not None:
            return
        if resp.get_header("vary") or resp.get_header("cache-control") == UNTOUCHED:
            return  # its responder has decided
        body = await resp.render_body()
        if body is None or len(body) <= LEAST:
            return
        resp.set_header("vary", "accept-encoding")
        coding = coding_for(req.get_header("accept-encoding"))
        if coding is None:
            return
        resp.data = await pack(body, coding)
        resp.text = resp.media = None
        resp.set_header("content-encoding", coding)
