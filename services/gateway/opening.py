"""Packed answers, opened piece by piece while they pass, for their facts only."""

import zlib
from collections.abc import Callable
from typing import Any

import zstandard

LARGEST_OPENED = 4_194_304  # bytes that one piece may unpack to
ZSTD_STEP = 1024  # bytes unpacked at a time: few of them may stand for megabytes


class Opener:
    """Gives the plain bytes of each piece; `broken` once it cannot any more: nothing
    comes then, and what the rest says is not known."""

    def __init__(self, unpack: Callable[[bytes], bytes] | None) -> None:
        self._unpack = unpack
        self.broken = unpack is None

    def __call__(self, piece: bytes) -> bytes:
        if self._unpack is None or self.broken:
            return b""
        try:
            return self._unpack(piece)
        except (zlib.error, zstandard.ZstdError, EOFError, _TooMuch):
            self.broken = True
            return b""


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


def _inflater(inflate: Any) -> Callable[[bytes], bytes]:
    def opened(piece: bytes) -> bytes:
        plain: bytes = inflate.decompress(piece, LARGEST_OPENED)
        if inflate.unconsumed_tail:
            raise _TooMuch
        return plain

    return opened


def _zstd() -> Callable[[bytes], bytes]:
    unpack = zstandard.ZstdDecompressor().decompressobj()

    def opened(piece: bytes) -> bytes:
        plain = bytearray()
        for start in range(0, len(piece), ZSTD_STEP):
            plain += unpack.decompress(piece[start : start + ZSTD_STEP])
            if len(plain) > LARGEST_OPENED:
                raise _TooMuch
        return bytes(plain)

    return opened
