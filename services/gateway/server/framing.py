"""Formats HTTP/1.1 messages (RFC 9112). Pure."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from libs.common.headers import Header
from libs.common.name_table import NameTable
from libs.common.upstream_answers.rate_limits import PREFIX
from services.gateway.content.headers import (
    end_to_end,
    names_limits,
    names_others,
    stays_here,
)

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED: Final = b"transfer-encoding: chunked\r\n"
CLOSE: Final = b"connection: close\r\n"
KEEP_ALIVE: Final = b"connection: keep-alive\r\n"  # not the default of HTTP/1.0
LAST_CHUNK: Final = b"0\r\n\r\n"
# What is in front of a chunk of a size: taken from here, a tenth of formatting it.
_SHORT: Final = 4096  # bytes
_SIZES: Final = tuple([b"%x\r\n" % size for size in range(_SHORT)])
WHOLE_WRITE: Final = 65_536  # bytes joined into one write; more are written in parts

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())
    for status, phrase in _PHRASES.items()
}
# Without the line break, which begins each line of a header.
_FIRST_LINES: Final = {status: line[:-2] for status, line in _STATUS_LINES.items()}
_OTHER: Final = 0
_SIZED: Final = 1
_LIMITED: Final = 2
Known = tuple[bytes, int]
"""Of the name of an upstream's header: what its line begins with, behind another one
(empty if it is not relayed), and what the header says. One lookup answers all that is
asked of a header."""


def _known(name: bytes) -> Known:
    limited = _LIMITED if name.startswith(PREFIX) else _OTHER
    says = _SIZED if name == b"content-length" else limited
    return b"" if stays_here(name) else b"\r\n" + name + b": ", says


_NAMES: Final[NameTable[Known]] = NameTable(_known)
_KNOWN: Final = _NAMES.entries  # looked up here, because that is sooner than a call


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def relayed_head(
    status: int, headers: list[Header], ours: bytes, framing: bytes
) -> tuple[bytes, bool, bool]:
    """The head of an upstream's response, for the client; whether it has a
    Content-Length, and whether `headers` tell limits of the upstream's key. `ours` and
    `framing` are header lines."""
    parts = [_FIRST_LINES.get(status) or status_line(status)[:-2]]
    sized = limited = False
    for name, value in headers:
        known = _KNOWN.get(name)
        start, says = _NAMES.learn(name) if known is None else known
        if start:
            parts.append(start + value)
            if says:
                sized, limited = sized or says == _SIZED, limited or says == _LIMITED
        elif name == b"connection" and names_others((name, value)):
            kept = end_to_end(headers)
            head, sized, _ = relayed_head(status, kept, ours, framing)
            return head, sized, names_limits(headers)
    parts += (b"\r\n", ours, framing, b"\r\n")
    return b"".join(parts), sized, limited


def own_head(status: int, headers: Iterable[Header], framing: bytes) -> bytes:
    """The head of a response of our own."""
    parts = [status_line(status)]
    parts += [b"%b: %b\r\n" % header for header in headers]
    parts += (framing, b"\r\n")
    return b"".join(parts)


def without_upgrade(
    method: bytes, target: bytes, version: bytes, headers: Iterable[Header]
) -> bytes:
    """A client's head without its Upgrade header."""
    lines = [b"%b %b HTTP/%b" % (method, target, version)]
    lines += [b"%b: %b" % header for header in headers if header[0] != b"upgrade"]
    return b"\r\n".join((*lines, b"", b""))


def chunk(data: bytes) -> bytes:
    size = len(data)
    line = _SIZES[size] if size < _SHORT else b"%x\r\n" % size
    return b"%b%b\r\n" % (line, data)


def bodiless(method: str, status: int) -> bool:
    """Responses without a body, whatever their length says (RFC 9110 6.4.1)."""
    return method == "HEAD" or status in (204, 304) or status < 200
