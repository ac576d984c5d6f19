"""Header lists in wire order: pairs of bytes, names in lower case, duplicates kept.
Pure."""

from collections.abc import Iterable
from typing import Final

from libs.common.name_table import NameTable

Header = tuple[bytes, bytes]
Kinds = tuple[bytes | None, bytes | None]
"""A body's Content-Type and Content-Encoding."""

NO_KINDS: Final[Kinds] = (None, None)


def find(headers: Iterable[Header], wanted: bytes) -> bytes | None:
    """Return the first value of the header `wanted`, or None."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def kinds(headers: list[Header]) -> Kinds:
    """Return the first Content-Type and Content-Encoding that are not empty."""
    content_type: bytes | None = None
    coding: bytes | None = None
    for name, value in headers:
        if name == b"content-type":
            content_type = content_type or value
        elif name == b"content-encoding":
            coding = coding or value
    return content_type, coding


Name = tuple[bytes, bytes]
"""A header name as a peer sends it, and in lower case."""


def _name(name: bytes) -> Name:
    return name, name.lower()


# The same object each time has its hash already, for other tables.
NAMES: Final[NameTable[Name]] = NameTable(_name)
"""By name as upstreams send it."""
