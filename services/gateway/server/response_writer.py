"""Writes responses to a client: framing, persistence, and how far each one got."""

from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

from libs.common.headers import Header
from services.gateway.server import framing
from services.gateway.server.request import Request


class Progress(Enum):
    """Of the response to the current request: NONE -> BEGUN -> ENDED -> NONE, the last
    step when the next request is served. A short response skips BEGUN."""

    NONE = "nothing was sent"
    BEGUN = "the head was sent"
    ENDED = "the last piece was sent"


class Framing(Enum):
    """How the body of a response ends."""

    PLAIN = "at its Content-Length, or with the connection"
    CHUNKED = "with the last chunk"
    NONE = "there is no body"


# A lookup of a member on its class is slow in Python 3.11: it runs a descriptor.
NONE: Final[Progress] = Progress.NONE
BEGUN: Final[Progress] = Progress.BEGUN
ENDED: Final[Progress] = Progress.ENDED
_PLAIN: Final[Framing] = Framing.PLAIN
_CHUNKED: Final[Framing] = Framing.CHUNKED
_NO_BODY: Final[Framing] = Framing.NONE


class Drains(Protocol):
    draining: bool  # the gateway shuts down: no connection is kept


class ResponseWriter:
    """Writes one response after the other.

    The connection sets `request`, to which `begin` or `send_whole` responds, and
    `write`, the method of its transport, which is None once nobody reads.
    """

    __slots__ = ("_framing", "_site", "limited", "progress", "request", "write")

    def __init__(self, site: Drains) -> None:
        self._site = site
        self._framing = _PLAIN
        self.progress = NONE
        # Do the headers that `begin` got tell limits of the upstream's key?
        self.limited = False
        self.request: Request | None = None
        self.write: Callable[[bytes], None] | None = None

    def begin(self, status: int, headers: list[Header], ours: bytes) -> bytes:
        """The head of an upstream's response, to be passed to `send` with the first
        piece. `ours` are header lines."""
        request = self.request
        assert request is not None
        head, sized, self.limited = framing.relayed_head(status, headers, ours, b"")
        lines = b""
        if request.method == "HEAD" or (
            status != 200 and framing.bodiless(request.method, status)
        ):
            self._framing = _NO_BODY
        elif sized:
            self._framing = _PLAIN
        elif request.http_1_0:
            self._framing, request.keep_alive = _PLAIN, False
        else:
            self._framing, lines = _CHUNKED, framing.CHUNKED
        if self._site.draining or not request.keep_alive or request.http_1_0:
            lines += self._persistence(request)
        lines += request.cors
        return head[:-2] + lines + b"\r\n" if lines else head

    def _persistence(self, request: Request) -> bytes:
        """Tells the client whether it may use the connection again."""
        if self._site.draining:
            request.keep_alive = False
        if not request.keep_alive:
            return framing.CLOSE
        return framing.KEEP_ALIVE if request.http_1_0 else b""

    def send(self, head: bytes, data: bytes, *, last: bool) -> None:
        """Write a piece of the body; `head` is what `begin` returned, once."""
        self.progress = ENDED if last else BEGUN
        if self._framing is not _PLAIN:
            data = self._framed(data, last=last)
        write = self.write
        if write is None:
            return
        if len(data) > framing.WHOLE_WRITE:
            if head:
                write(head)
            write(data)
        elif head:
            write(head + data)
        elif data:
            write(data)

    def _framed(self, data: bytes, *, last: bool) -> bytes:
        if self._framing is _NO_BODY:
            return b""
        if data:
            data = framing.chunk(data)
        return data + framing.LAST_CHUNK if last else data

    def send_whole(
        self, status: int, headers: list[Header], body: bytes, ours: bytes = b""
    ) -> None:
        """Write a response of our own, or one whose body is complete."""
        request = self.request
        assert request is not None
        framed = [header for header in headers if header[0] != b"content-length"]
        if status not in (204, 304):
            framed.append((b"content-length", b"%d" % len(body)))
        lines = ours + self._persistence(request) + request.cors
        bodiless = framing.bodiless(request.method, status)
        self._framing = _NO_BODY if bodiless else _PLAIN
        self.send(framing.own_head(status, framed, lines), body, last=True)

    def interim(self, head: bytes) -> None:
        """Write an interim response, such as 100 Continue."""
        if self.write is not None:
            self.write(head)
