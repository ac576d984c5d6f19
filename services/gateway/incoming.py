"""What a client's request says: its path below /v1, its body's plain bytes. Pure."""

import re
import zlib
from urllib.parse import unquote_to_bytes

import zstandard

from libs.common.headers import Header, find
from services.gateway import problems

LARGEST_OPENED = 16_777_216  # bytes of a compressed body opened for its hints
_SUSPICIOUS = re.compile(rb"[%#\\]|\.\.?(/|$)")


def upstream_path(raw_path: bytes) -> bytes:
    """What follows /v1. Dot segments and encoded slashes never leave /v1
    upstream: they are refused (RFC 3986 section 6.2.2 lets servers merge them)."""
    if not raw_path.startswith(b"/v1/"):
        raise problems.unsafe_path()  # spelled with escapes: /v%31/
    path = raw_path[3:]
    if _SUSPICIOUS.search(path):
        if b"#" in path:
            raise problems.unsafe_path()  # some servers would cut the path there
        for segment in path.split(b"/"):
            plain = unquote_to_bytes(segment)
            if plain in (b".", b"..") or b"/" in plain or b"\\" in plain:
                raise problems.unsafe_path()
    return path


def opened(body: bytes, headers: list[Header]) -> bytes:
    """The body's plain bytes, for hints only; empty when it cannot be opened
    within the bound. What travels is the body as it came."""
    coding = find(headers, b"content-encoding")
    if coding is None or coding == b"identity" or not body:
        return body
    try:
        if coding == b"zstd":
            reader = zstandard.ZstdDecompressor().stream_reader(body)
            return _whole(reader.read(LARGEST_OPENED + 1))
        if coding == b"gzip":
            plain = zlib.decompressobj(wbits=31).decompress(body, LARGEST_OPENED + 1)
            return _whole(plain)
    except (zlib.error, zstandard.ZstdError):
        pass
    return b""


def _whole(plain: bytes) -> bytes:
    return plain if len(plain) <= LARGEST_OPENED else b""
