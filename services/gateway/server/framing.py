"""HTTP/1.1 messages as bytes (RFC 9112). Pure."""

from collections.abc import Iterable
from http import HTTPStatus

from libs.common.headers import Header
from services.gateway.content.headers import NOT_DOWN, end_to_end, names_others

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
CLOSE = b"connection: close\r\n"
KEEP_ALIVE = b"connection: keep-alive\r\n"  # which HTTP/1.0 does not take for granted
LAST_CHUNK = b"0\r\n\r\n"
WHOLE_WRITE = 65_536  # so much is put together; more goes to the socket in parts

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())
    for status, phrase in _PHRASES.items()
}
_OURS = b"x-proxy-"  # an upstream's may be of another such gateway


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def relayed_head(
    status: int, headers: Iterable[Header], ours: bytes, framing: bytes
) -> bytes:
    """The head of an upstream's answer on its way to the client. `ours` and
    `framing` are header lines."""
    parts = [status_line(status)]
    for header in headers:
        name = header[0]
        if name in NOT_DOWN:
            if names_others(header):
                return relayed_head(status, end_to_end(headers), ours, framing)
        elif not name.startswith(_OURS):
            parts.append(b"%b: %b\r\n" % header)
    parts += (ours, framing, b"\r\n")
    return b"".join(parts)


def own_head(status: int, headers: Iterable[Header], framing: bytes) -> bytes:
    """The head of an answer of our own."""
    parts = [status_line(status)]
    parts += [b"%b: %b\r\n" % header for header in headers]
    parts += (framing, b"\r\n")
    return b"".join(parts)


def without_upgrade(
    method: bytes, target: bytes, version: bytes, headers: Iterable[Header]
) -> bytes:
    """A client's head once more, as if it did not ask for another protocol."""
    lines = [b"%b %b HTTP/%b" % (method, target, version)]
    lines += [b"%b: %b" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join((*lines, b"", b""))


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def bodiless(method: str, status: int) -> bool:
    """Answers that have no body, whatever their length says (RFC 9110 6.4.1)."""
    return method == "HEAD" or status in (204, 304) or status < 200
