"""Header lists in wire order: pairs of bytes, names in lower case, duplicates kept.
Pure."""

from collections.abc import Iterable
from typing import Final

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
MOST_NAMES = 512  # what an odd peer sends must not fill memory
LONGEST_NAME = 64  # bytes
MOST_ORDERED: Final = 32  # names of which a connection keeps the order
# Peers send the same few names. The same object each time has its hash already, for
# other tables.
_names: Final[dict[bytes, Name]] = {}


def lower_name(name: bytes, order: list[Name], place: int) -> bytes:
    """A name in lower case. `order`: of the names in a connection's last message; this
    one belongs at `place`. Peers send the same names in the same order: who finds one
    at its place need not call this, which has to hash the name."""
    found = _names.get(name)
    if found is None:
        found = name, name.lower()
        if len(_names) < MOST_NAMES and len(name) <= LONGEST_NAME:
            _names[name] = found
    if place < len(order):
        order[place] = found
    elif place < MOST_ORDERED:
        order.append(found)
    return found[1]
