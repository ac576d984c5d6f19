"""Selects and rewrites the headers of forwarded requests and answers. Pure."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from libs.common.headers import Header
from libs.common.upstream_answers.rate_limits import PREFIX

# RFC 9110 section 7.6.1, and other headers that concern one connection only.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# The client's credentials are for this proxy; `host` and `content-length` are written
# for the upstream request; our server has already answered `expect`.
_NOT_UP = HOP_BY_HOP | {
    b"authorization",
    b"api-key",
    b"x-api-key",
    b"ocp-apim-subscription-key",  # another name of Azure's
    b"cookie",
    b"host",
    b"content-length",
    b"expect",
    b"openai-organization",  # would have to match the selected key
    b"openai-project",
    b"x-forwarded-for",  # addresses of clients and balancers are not the upstream's
    b"x-real-ip",
    b"forwarded",
}
ACCEPT_ENCODING = b"accept-encoding"
JSON_TYPE: Final[Header] = (b"content-type", b"application/json")
_LIMITS: Final = PREFIX  # found sooner than a name of another module
_X: Final = ord("x")  # its first letter
_SPECIAL = _NOT_UP | {ACCEPT_ENCODING}
# The codings that the gateway can decompress. In any other it could neither read usage
# nor find the upstream key in an error.
CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate", b"zstd"})
_USUAL_OPTIONS = (b"keep-alive", b"close")
OURS: Final = b"x-proxy-"  # the upstream may be another gateway that sends these
# The WebSocket library negotiates keys, versions and extensions with the upstream;
# browsers send the client's key as a subprotocol.
_NOT_IN_UPGRADE = (OURS, b"sec-websocket-")
# Of a head: from the end of the line before up to the end of the line.
# Those that follow one another are one match, which takes less time.
_LIMIT_LINES = re.compile(rb"(?:\n" + re.escape(PREFIX) + rb"[^\n]*)+")
# The upstream's CORS headers are replaced by the gateway's own policy. Cookies belong
# to the upstream's edge network; the organization and project name its account.
_NOT_DOWN = HOP_BY_HOP | {
    b"access-control-allow-credentials",
    b"access-control-allow-headers",
    b"access-control-allow-methods",
    b"access-control-allow-origin",
    b"access-control-expose-headers",
    b"access-control-max-age",
    b"set-cookie",
    b"openai-organization",
    b"openai-project",
    b"alt-svc",
}


def names_limits(headers: list[Header]) -> bool:
    """Do an answer's headers tell the limits of the upstream's key?"""
    for name, _ in headers:  # noqa: SIM110 - any() takes three times as long
        if name[0] == _X and name.startswith(_LIMITS):
            return True
    return False


def without_limits(headers: Iterable[Header]) -> list[Header]:
    """An answer's headers without those that tell the limits of the upstream's key."""
    return [header for header in headers if not header[0].startswith(PREFIX)]


def without_limit_lines(head: bytes) -> bytes:
    """The same for a head as it is sent."""
    return _LIMIT_LINES.sub(b"", head)


def request_head(
    method: str,
    target: bytes,
    host: bytes,
    authorization: bytes,
    lines: Iterable[bytes],
    length: int | None,
) -> bytes:
    """The serialized head of an upstream request. `authorization` is the line with the
    key, `lines` are those of the client's headers (`lines_of`). Without a `length` it
    has no Content-Length."""
    first = b"%b %b HTTP/1.1\r\nhost: %b" % (method.encode(), target, host)
    if length is None:
        return b"\r\n".join([first, *lines, authorization, b"", b""])
    last = b"content-length: %d\r\n\r\n" % length
    return b"\r\n".join([first, *lines, authorization, last])


def lines_of(headers: Iterable[Header]) -> list[bytes]:
    """The lines for the upstream of a client's headers."""
    lines = []
    for name, value in headers:
        start = line_start(name)
        if start:
            lines.append(start + value)
        elif name == ACCEPT_ENCODING:
            lines.append(coding_line(value))
        elif name == b"connection" and names_others((name, value)):
            return lines_of(end_to_end(headers))
    return lines


def line_start(name: bytes) -> bytes:
    """What the line of a client's header begins with; empty if it needs a closer
    look."""
    passed = name not in _SPECIAL and not name.startswith(OURS)
    return name + b": " if passed else b""


def coding_line(value: bytes) -> bytes:
    """The line of a client's Accept-Encoding."""
    return ACCEPT_ENCODING + b": " + readable(value)


def upgrade_head(headers: Iterable[Header], keys: Iterable[Header]) -> list[Header]:
    """Headers of an upstream upgrade request, without those that the WebSocket
    library writes itself. `keys` are those with the upstream key."""
    kept = [
        (name, readable(value) if name == ACCEPT_ENCODING else value)
        for name, value in end_to_end(headers)
        if name not in _NOT_UP and not name.startswith(_NOT_IN_UPGRADE)
    ]
    return [*kept, *keys]


def downstream(headers: Iterable[Header], ours: Iterable[Header]) -> list[Header]:
    """The headers of the client's answer: the upstream's, then `ours`, which replace
    headers of the same name."""
    replaced = {name for name, _ in ours}
    kept = [
        header
        for header in end_to_end(headers)
        if header[0] not in replaced and not stays_here(header[0])
    ]
    kept.extend(ours)
    return kept


def stays_here(name: bytes) -> bool:
    """Is it a header of an upstream's answer that clients do not get?"""
    return name in _NOT_DOWN or name.startswith(OURS)


def readable(accepted: bytes) -> bytes:
    """An Accept-Encoding limited to the codings that the gateway can decompress."""
    return _readable(accepted) if len(accepted) <= 100 else _narrowed(accepted)


def _narrowed(accepted: bytes) -> bytes:
    listed = accepted.split(b",")
    kept = [part for part in listed if _known(part)]
    if len(kept) == len(listed):
        return accepted
    return b",".join(kept).strip() or b"identity"


def _known(part: bytes) -> bool:
    coding = part.partition(b";")[0].strip().lower()
    return not coding or coding == b"identity" or coding in CODINGS


_readable = lru_cache(256)(_narrowed)


def names_others(header: Header) -> bool:
    """Is it a Connection header that makes other headers hop-by-hop?"""
    return header[0] == b"connection" and header[1].lower() not in _USUAL_OPTIONS


def end_to_end(headers: Iterable[Header]) -> list[Header]:
    """Drops Connection headers and the headers they name. Content-Length stays even if
    named, because the framing of a message does not depend on what a peer names."""
    named = {b"connection"}
    for header in headers:
        if names_others(header):
            named.update(option.strip().lower() for option in header[1].split(b","))
    named.discard(b"content-length")
    return [header for header in headers if header[0] not in named]
