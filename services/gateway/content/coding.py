"""Decompresses message bodies: whole ones up to a limit, and streams piece by piece,
to read them. What is forwarded stays as it was compressed. Pure."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

LARGEST_WINDOW = 1 << 27  # bytes of memory that one zstd frame may demand
LARGEST_OPENED = 4_194_304  # bytes that one piece may decompress to
PIECE = 65_536  # bytes decompressed at a time
ZSTD_STEP = 64  # bytes of zstd input at a time: four may expand to 128 KiB


class Opener:
    """Decompresses a stream. `broken` is set once it cannot go on: it then returns
    nothing, and the rest of the stream stays unread."""

    def __init__(self, unpack: Callable[[bytes], Iterator[bytes]] | None) -> None:
        self._unpack = unpack
        self.broken = unpack is None

    def __call__(self, piece: bytes) -> bytes:
        return b"".join(self.pieces(piece))

    def pieces(self, piece: bytes) -> Iterator[bytes]:
        """The plain bytes of `piece`, at most about `PIECE` at a time."""
        if self._unpack is None or self.broken:
            return
        size = 0
        try:
            for plain in self._unpack(piece):
                size += len(plain)
                if size > LARGEST_OPENED:
                    raise _TooMuch
                yield plain
        except (zlib.error, zstandard.ZstdError, EOFError, _TooMuch):
            self.broken = True


def opener(coding: bytes | None) -> Opener | None:
    """A decompressor for a stream with this Content-Encoding. None when it is not
    compressed; a broken one when the coding is unknown."""
    if coding == b"gzip":
        return Opener(_inflater(zlib.decompressobj(wbits=31)))
    if coding == b"deflate":
        return Opener(_inflater(zlib.decompressobj()))
    if coding == b"zstd":
        return Opener(_zstd())
    return None if coding in (None, b"identity") else Opener(None)


class _TooMuch(Exception):
    """One piece decompresses to more than `LARGEST_OPENED`."""


def _inflater(inflate: Any) -> Callable[[bytes], Iterator[bytes]]:
    def unpacked(piece: bytes) -> Iterator[bytes]:
        for start in range(0, len(piece), PIECE):
            rest = piece[start : start + PIECE]
            while rest:
                yield inflate.decompress(rest, PIECE)
                rest = inflate.unconsumed_tail

    return unpacked


def _zstd() -> Callable[[bytes], Iterator[bytes]]:
    unpack = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()

    def unpacked(piece: bytes) -> Iterator[bytes]:
        plain = bytearray()
        for start in range(0, len(piece), ZSTD_STEP):
            plain += unpack.decompress(piece[start : start + ZSTD_STEP])
            if len(plain) >= PIECE:
                yield bytes(plain)
                plain.clear()
        yield bytes(plain)

    return unpacked


def decompressed(body: bytes, coding: bytes, limit: int) -> bytes | None:
    """The plain bytes of a whole body, cut at `limit` + 1. Of a truncated body, as
    many as it yields. None when the coding is unknown or the data is corrupt."""
    coding = coding.strip().lower()
    if coding == b"identity" or not body:
        return body[: limit + 1]
    try:
        if coding == b"zstd":
            unpack = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
            with unpack.stream_reader(body, read_across_frames=True) as reader:
                return reader.read(limit + 1)
        if coding in (b"gzip", b"x-gzip"):
            return _inflated(body, 31, limit)
        if coding == b"deflate":
            return _deflated(body, limit)
    except (zlib.error, zstandard.ZstdError):
        pass
    return None


def _deflated(body: bytes, limit: int) -> bytes:
    """RFC 9110 section 8.4.1.2 requires the zlib header; some senders omit it."""
    try:
        return _inflated(body, 15, limit)
    except zlib.error:
        return _inflated(body, -15, limit)


def _inflated(body: bytes, wbits: int, limit: int) -> bytes:
    """All members: a gzip body may have several."""
    pieces: list[bytes] = []
    size = 0
    while body and size <= limit:
        inflate = zlib.decompressobj(wbits=wbits)
        pieces.append(inflate.decompress(body, limit + 1 - size))
        size += len(pieces[-1])
        body = inflate.unused_data
    return b"".join(pieces)
