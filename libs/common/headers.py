"""Header lists as the wire has them: pairs of bytes, names in lower case, in
order, duplicates kept. Pure."""

from collections.abc import Iterable

Header = tuple[bytes, bytes]


def find(headers: Iterable[Header], wanted: bytes) -> bytes | None:
    """The first value of a header."""
    for name, value in headers:
        if name == wanted:
            return value
    return None
