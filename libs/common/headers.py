"""Header lists as the wire has them: pairs of bytes, names in lower case, in
order, duplicates kept. Pure."""

from collections.abc import Iterable

Header = tuple[bytes, bytes]
Kinds = tuple[bytes | None, bytes | None]
"""What a body is: its content type and its coding."""

NO_KINDS: Kinds = (None, None)


def find(headers: Iterable[Header], wanted: bytes) -> bytes | None:
    """The first value of a header."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def kinds(headers: Iterable[Header]) -> Kinds:
    """The first of each that says something."""
    content_type: bytes | None = None
    coding: bytes | None = None
    for name, value in headers:
        if name == b"content-type":
            content_type = content_type or value
        elif name == b"content-encoding":
            coding = coding or value
    return content_type, coding
