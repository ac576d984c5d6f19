"""Captured bodies as the admin API shows them: decompressed, and as text if they are
UTF-8. Pure."""

import base64
import codecs
from collections.abc import Iterable
from typing import Any

import zstandard

from libs.common.contracts.events import Row

LARGEST_SHOWN = 67_108_864
DIRECTIONS = ("request", "response")
UNOPENED = "cannot be decompressed: not zstd"


def shown(rows: Iterable[Row]) -> dict[str, Any]:
    """Both bodies of a request; null for one that was not captured."""
    bodies: dict[str, Any] = dict.fromkeys(DIRECTIONS)
    bodies.update({row["direction"]: _shown(row) for row in rows})
    return bodies


def _shown(row: Row) -> dict[str, Any]:
    inner, _, outer = row["encoding"].rpartition(", ")
    described = {
        "content_type": row["content_type"],
        "content_encoding": inner or None,  # the gateway could not decode it
        "original_bytes": row["original_bytes"],
        "truncated": row["truncated"],
        "dropped": row["dropped"],
        "encoding": None,
        "body": None,
    }
    if row["dropped"] is not None:
        return described
    body = _opened(row["body"]) if outer == "zstd" else None
    if body is None:
        return {**described, "dropped": UNOPENED}
    encoding, text = _as_text(body, cut=row["truncated"])
    return {**described, "encoding": encoding, "body": text}


def _opened(body: bytes) -> bytes | None:
    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            return reader.read(LARGEST_SHOWN)
    except zstandard.ZstdError:
        return None


def _as_text(body: bytes, *, cut: bool) -> tuple[str, str]:
    """UTF-8 text, else base64. Truncation may have split the last character."""
    try:
        decoder = codecs.getincrementaldecoder("utf-8")()
        return "utf-8", decoder.decode(body, final=not cut)
    except UnicodeDecodeError:
        return "base64", base64.b64encode(body).decode()
