"""Decompresses request bodies, to read them within bounds. What is forwarded stays as
it was compressed. Pure."""

import zlib
from collections.abc import Iterator

import zstandard

from libs.common.headers import Header, find

LARGEST_OPENED = 16_777_216  # bytes of a compressed body that are read
LARGEST_WINDOW = 1 << 23  # of a zstd frame (RFC 9659 allows no more)
PIECE = 65_536  # plain bytes of one step
PACKED_STEP = 16_384  # bytes of a gzip body that one step reads
MOST_MEMBERS = 256  # of a gzip body


class Unopened(Exception):
    """A body that cannot be opened, or not within the bounds."""


def opened(body: bytes, headers: list[Header]) -> bytes | None:
    """The body's plain bytes, at once; None when it cannot be opened within the
    bounds. What travels is the body as it came."""
    coding = find(headers, b"content-encoding")
    try:
        return b"".join(unpacked(body, coding))
    except Unopened:
        return None


def unpacked(body: bytes, coding: bytes | None) -> Iterator[bytes]:
    """The plain bytes in pieces of up to PIECE bytes, some of them empty, so that each
    takes little time. Raises `Unopened`."""
    if coding is None or coding == b"identity" or not body:
        return iter((body,))
    if coding == b"zstd":
        return _bounded(_zstd(body))
    if coding == b"gzip":
        return _bounded(_gzip(body))
    raise Unopened


def _bounded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    try:
        for piece in pieces:
            size += len(piece)
            if size > LARGEST_OPENED:
                raise Unopened
            yield piece
    except (zlib.error, zstandard.ZstdError):
        raise Unopened from None


def _zstd(body: bytes) -> Iterator[bytes]:
    """All frames. A step's output is bounded, but not how much it reads for that:
    large bodies are for a thread (the library lets others run)."""
    opener = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
    with opener.stream_reader(body, read_across_frames=True) as reader:
        while piece := reader.read(PIECE):
            yield piece


def _gzip(body: bytes) -> Iterator[bytes]:
    """All members."""
    opener = zlib.decompressobj(wbits=31)
    members = 1
    for start in range(0, len(body), PACKED_STEP):
        rest = body[start : start + PACKED_STEP]
        while rest:
            if opener.eof:
                members += 1
                if members > MOST_MEMBERS:
                    raise Unopened
                opener = zlib.decompressobj(wbits=31)
            yield opener.decompress(rest, PIECE)
            rest = opener.unconsumed_tail or opener.unused_data
    if not opener.eof:
        raise Unopened  # cut
