"""A client's request, as received."""

import re
from typing import Final

from libs.common.headers import Header
from services.gateway.errors import Problem

_QUESTION_MARK: Final = ord("?")


class Request:
    """One request.

    `path` and `query` are those of the target in origin form; `query` includes the
    question mark. Header names are lower case; values are bytes.
    """

    __slots__ = ("body", "coding", "content_type", "cors", "headers", "held",
                 "http_1_0", "keep_alive", "lines", "method", "origin", "path",
                 "problem", "query", "repeats", "told")  # fmt: skip

    def __init__(self, method: str, target: bytes, headers: list[Header]) -> None:
        self.method = method
        self.path = target
        self.query = b""  # a question mark alone is a query, too
        if _QUESTION_MARK in target:
            self.path, mark, query = target.partition(b"?")
            self.query = mark + query
        self.headers = headers
        self.told = headers  # those that say who asks, and for what session and pool
        # The lines of its headers for the upstream, if they were made.
        self.lines: list[bytes] | None = None
        self.body = b""
        self.content_type: bytes | None = None
        self.coding: bytes | None = None  # the body's Content-Encoding
        self.origin: bytes | None = None  # of the web page that sent it
        self.cors = b""  # header lines for each response to it
        # More than one Content-Type or Content-Encoding: parsers may take either.
        self.repeats = False
        self.keep_alive = True
        self.http_1_0 = False
        self.held = 0  # bytes of the memory for large bodies
        self.problem: Problem | None = None  # why it is refused, if it is


def origin_form(target: bytes) -> tuple[bytes | None, bytes]:
    """Host and path of a target that is a complete URL (RFC 9112 section 3.2.2). The
    host is None for other targets, and empty for a URL that is not http or https."""
    scheme, found, rest = target.partition(b"://")
    if not found:
        return None, b"/" + target
    end = next((at for at, byte in enumerate(rest) if byte in b"/?"), len(rest))
    path = rest[end:]
    host = rest[:end] if scheme.lower() in (b"http", b"https") else b""
    return host, path if path.startswith(b"/") else b"/" + path


def valid_host(value: bytes) -> bool:
    """Whether it is a `Host` as in RFC 9110 section 7.2. An empty one is not."""
    return _HOST.fullmatch(value) is not None


_HOST = re.compile(
    rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+;=%-]+)(:[0-9]{0,5})?"
)
