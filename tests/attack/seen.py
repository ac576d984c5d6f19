"""A request as it arrived at the upstream, and what a well-formed one looks like."""

import re
from dataclasses import dataclass

METHODS = rb"GET|POST|HEAD|DELETE|PUT|PATCH|OPTIONS"
START = re.compile(rb"(" + METHODS + rb") (/[!\x22$-~]*) HTTP/1\.1")
LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t\x20-\x7e\x80-\xff]*)")


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: bytes) -> bytes:
        return dict(self.headers).get(name, b"")

    @property
    def token(self) -> bytes:
        return self.header(b"x-token")


class Malformed(Exception):
    """A request that a gateway must not send."""


def header_of(line: bytes) -> tuple[bytes, bytes]:
    found = LINE.fullmatch(line)
    if found is None:
        raise Malformed(f"header line {line!r}")
    return found[1].lower(), found[2]
