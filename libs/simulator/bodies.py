"""Decodes request bodies: content encodings and JSON. Pure."""

import io
import zlib

import msgspec
import zstandard

from libs.simulator.api import errors
from libs.simulator.settings import MAX_BODY_BYTES
from libs.simulator.wire import Json

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


def decoded(raw: bytes, encoding: str) -> bytes:
    """The body without its content encoding; raises `ApiError` if it cannot be
    decoded."""
    try:
        plain = _decoded(raw, encoding.strip().lower())
    except (zlib.error, zstandard.ZstdError) as error:
        raise errors.bad_json() from error
    if len(plain) > MAX_BODY_BYTES:
        raise errors.too_large()
    return plain


def _decoded(raw: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw))
        return reader.read(MAX_BODY_BYTES + 1)
    if encoding in ("gzip", "deflate"):
        inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        return inflate.decompress(raw, MAX_BODY_BYTES + 1)
    return raw


def parsed(plain: bytes) -> Json:
    """The JSON object of a body; an empty body is an empty object."""
    if not plain.strip():
        return {}
    try:
        value = msgspec.json.decode(plain)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.bad_json() from error
    if not isinstance(value, dict):
        raise errors.bad_json()
    return value
