"""A client's request as it arrives: path, headers, body; and whether the
client is still there."""

import asyncio
import re
import zlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import zstandard

from libs.common.headers import Header, find
from services.gateway import problems

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Granian tells nobody that a client left unless someone asks (hotpath.md,
# trap 1). Most requests are over before anyone needs to.
WATCH_AFTER_S = 0.1
BODY_IDLE_S = 60.0  # between two pieces of a request body
MOST_DISCARDED = 16_777_216
MOST_DISCARDED_S = 10.0
LARGEST_OPENED = 16_777_216  # bytes of a compressed body opened for its hints
_SUSPICIOUS = re.compile(rb"%|\.\.?(/|$)|\\")


class ClientLeft(Exception):
    """The client closed its connection."""


def upstream_path(raw_path: bytes) -> bytes:
    """What follows /v1. Dot segments and encoded slashes never leave /v1
    upstream: they are refused (RFC 3986 section 6.2.2 lets servers merge them)."""
    if not raw_path.startswith(b"/v1/"):
        raise problems.unsafe_path()  # spelled with escapes: /v%31/
    path = raw_path[3:]
    if _SUSPICIOUS.search(path):
        for segment in path.split(b"/"):
            plain = unquote_to_bytes(segment)
            if plain in (b".", b"..") or b"/" in plain or b"\\" in plain:
                raise problems.unsafe_path()
    return path


async def read_body(receive: Receive, headers: list[Header], limit: int) -> bytes:
    """The whole body, as sent. Over the limit is refused before it is read, and
    so is one that stalls."""
    try:
        async with asyncio.timeout(BODY_IDLE_S) as clock:
            return await _read_body(receive, headers, limit, clock)
    except TimeoutError:
        raise problems.body_stalled(BODY_IDLE_S) from None


async def _read_body(
    receive: Receive, headers: list[Header], limit: int, clock: asyncio.Timeout
) -> bytes:
    announced = find(headers, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise problems.body_too_large(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    pieces = None
    size = len(body)
    if size > limit:
        raise problems.body_too_large(limit)
    while message.get("more_body", False):
        clock.reschedule(asyncio.get_running_loop().time() + BODY_IDLE_S)
        message = await receive()
        piece = message.get("body", b"")
        pieces = pieces or [body]
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise problems.body_too_large(limit)
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return b"".join(pieces) if pieces else body


async def discard_rest(receive: Receive, problem: problems.Problem) -> None:
    """Read on for a while after a body was refused early: a connection closed upon
    unread bytes is reset, and the client would never see the answer."""
    if problem.status not in (401, 413):
        return
    discarded = 0
    try:
        async with asyncio.timeout(MOST_DISCARDED_S):
            while discarded < MOST_DISCARDED:
                message = await receive()
                discarded += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def opened(body: bytes, headers: list[Header]) -> bytes:
    """The body's plain bytes, for hints only; empty when it cannot be opened
    within the bound. What travels is the body as it came."""
    coding = find(headers, b"content-encoding")
    if coding is None or coding == b"identity" or not body:
        return body
    try:
        if coding == b"zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(body)
            return _whole(reader.read(LARGEST_OPENED + 1))
        if coding == b"gzip":
            plain = zlib.decompressobj(wbits=31).decompress(body, LARGEST_OPENED + 1)
            return _whole(plain)
    except (zlib.error, zstandard.ZstdError):
        pass
    return b""


def _whole(plain: bytes) -> bytes:
    return plain if len(plain) <= LARGEST_OPENED else b""


class Presence:
    """Watches for the client's leaving once its request has been read, and
    cancels the request's task then."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._request = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self._start = self._loop.call_later(WATCH_AFTER_S, self._begin)
        self.left = False

    def _begin(self) -> None:
        self._watch = self._loop.create_task(self._wait())

    async def _wait(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._request is not None:
            self.left = True
            self._request.cancel()

    def stop(self) -> None:
        self._start.cancel()
        if self._watch is not None:
            self._watch.cancel()
