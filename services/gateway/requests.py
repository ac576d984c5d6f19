"""A client's request, as it came off the wire."""

from libs.common.headers import Header
from services.gateway.problems import Problem


class Request:
    """`target` is the request line's, as sent; `query` is what follows its path, with
    the question mark. Header names are lower-cased, their values are bytes. `problem`
    is what is wrong with it, if the connection found something: it is to be answered
    with that. `cors` are header lines that every answer to it gets."""

    __slots__ = ("body", "coding", "content_type", "cors", "headers", "http_1_0",
                 "keep_alive", "method", "origin", "path", "problem",
                 "query")  # fmt: skip

    def __init__(self, method: str, target: bytes, headers: list[Header]) -> None:
        if not target.startswith(b"/"):
            target = _origin_form(target)
        self.method = method
        self.path, mark, query = target.partition(b"?")
        self.query = mark + query  # a mark alone is a query, too
        self.headers = headers
        self.body = b""
        self.content_type: bytes | None = None
        self.coding: bytes | None = None  # the content's, if it has one
        self.origin: bytes | None = None  # of the page that sent it; programs have none
        self.cors = b""
        self.keep_alive = True
        self.http_1_0 = False
        self.problem: Problem | None = None


def _origin_form(target: bytes) -> bytes:
    """Clients may write the whole URL (RFC 9112 section 3.2.2)."""
    _, found, rest = target.partition(b"://")
    if not found:
        return b"/" + target
    _, slash, path = rest.partition(b"/")
    return slash + path or b"/"
