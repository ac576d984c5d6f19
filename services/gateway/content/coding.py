"""Packed answers, opened piece by piece while they pass, for their facts only."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import zstandard

LARGEST_WINDOW = 1 << 27  # of a zstd frame; more memory is not given to open one
LARGEST_OPENED = 4_194_304  # bytes that one piece may unpack to
PIECE = 65_536  # bytes unpacked at a time
ZSTD_STEP = 64  # bytes of zstd taken at a time: four of them may stand for 128 KiB


class Opener:
    """Gives the plain bytes of each piece; `broken` once it cannot any more: nothing
    comes then, and what the rest says is not known."""

    def __init__(self, unpack: Callable[[bytes], Iterator[bytes]] | None) -> None:
        self._unpack = unpack
        self.broken = unpack is None

    def __call__(self, piece: bytes) -> bytes:
        return b"".join(self.pieces(piece))

    def pieces(self, piece: bytes) -> Iterator[bytes]:
        """The same, some at a time."""
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
    """None for what is not packed."""
    if coding == b"gzip":
        return Opener(_inflater(zlib.decompressobj(wbits=31)))
    if coding == b"deflate":
        return Opener(_inflater(zlib.decompressobj()))
    if coding == b"zstd":
        return Opener(_zstd())
    return None if coding in (None, b"identity") else Opener(None)


class _TooMuch(Exception):
    """It unpacks to more than anybody would send."""


def _inflater(inflate: Any) -> Callable[[bytes], Iterator[bytes]]:
    def opened(piece: bytes) -> Iterator[bytes]:
        for start in range(0, len(piece), PIECE):
            rest = piece[start : start + PIECE]
            while rest:
                yield inflate.decompress(rest, PIECE)
                rest = inflate.unconsumed_tail

    return opened


def _zstd() -> Callable[[bytes], Iterator[bytes]]:
    unpack = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW).decompressobj()

    def opened(piece: bytes) -> Iterator[bytes]:
        plain = bytearray()
        for start in range(0, len(piece), ZSTD_STEP):
            plain += unpack.decompress(piece[start : start + ZSTD_STEP])
            if len(plain) >= PIECE:
                yield bytes(plain)
                plain.clear()
        yield bytes(plain)

    return opened
