"""A client's request, as it came off the wire."""

import re

from libs.common.headers import Header
from services.gateway.errors import Problem


class Request:
    """`target` is the request line's, in origin form; `query` is what follows its path,
    with the question mark. Header names are lower-cased, their values are bytes.
    `problem` is what the connection found wrong with it: the answer to give. `cors`
    are header lines that every answer to it gets. `repeats`: there are two
    Content-Type or Content-Encoding headers, of which parsers may take either."""

    __slots__ = ("body", "coding", "content_type", "cors", "headers", "held",
                 "http_1_0", "keep_alive", "method", "origin", "path", "problem",
                 "query", "repeats")  # fmt: skip

    def __init__(self, method: str, target: bytes, headers: list[Header]) -> None:
        self.method = method
        self.path, mark, query = target.partition(b"?")
        self.query = mark + query  # a mark alone is a query, too
        self.headers = headers
        self.body = b""
        self.content_type: bytes | None = None
        self.coding: bytes | None = None  # the content's, if it has one
        self.origin: bytes | None = None  # of the page that sent it; programs have none
        self.cors = b""
        self.repeats = False
        self.keep_alive = True
        self.http_1_0 = False
        self.held = 0  # bytes of the room for large bodies
        self.problem: Problem | None = None


def origin_form(target: bytes) -> tuple[bytes | None, bytes]:
    """The host and the path of a target that is a whole URL (RFC 9112 section 3.2.2).
    Other targets name no host. One that is no URL of HTTP has an empty host."""
    scheme, found, rest = target.partition(b"://")
    if not found:
        return None, b"/" + target
    end = next((at for at, byte in enumerate(rest) if byte in b"/?"), len(rest))
    path = rest[end:]
    host = rest[:end] if scheme.lower() in (b"http", b"https") else b""
    return host, path if path.startswith(b"/") else b"/" + path


def valid_host(value: bytes) -> bool:
    """Is it a `Host` of RFC 9110 section 7.2? An empty one names nobody."""
    return _HOST.fullmatch(value) is not None


_HOST = re.compile(
    rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+;=%-]+)(:[0-9]{0,5})?"
)
