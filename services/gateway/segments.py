"""The files of a journal: records in memory-mapped segments of one size.

A record is written by the process's own stores, without a system call, and lives
in the page cache from then on: `kill -9` does not lose it, the machine's crash may
(nothing is fsynced). The last thing written of a record is its stamp: without it the
rest is not there, be it torn or what a reused segment holds of its earlier life."""

import mmap
import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

SEGMENT_BYTES = 4 * 1024 * 1024
HEAD = struct.Struct("<8sQ")  # magic, number
MAGIC = b"RPXJ0001"
RECORD = struct.Struct("<II")  # kind above the length; stamp
LENGTH_BITS = 24
LENGTH_MASK = (1 << LENGTH_BITS) - 1
_SPREAD = 0x9E3779B1  # odd: two segments' stamps differ at every offset
_STAMP_MASK = 0xFFFFFFFF
_pack_into = RECORD.pack_into


class Kind(IntEnum):
    """What a record tells. All but CHECK: an id, a newline, JSON."""

    ACCEPTED = 1  # a request's lease record, without its last brace
    CARRIED = 2  # the same once more, for a segment that is given up
    DECISION = 3
    REQUEST = 4  # a request ended: its event
    ADOPTED = 5  # the same, of a gateway that died
    CHECK = 6  # counters, and what is safe
    GATEWAY = 7  # a gateway event


class Record(NamedTuple):
    """`position` counts bytes since the journal began."""

    position: int
    kind: Kind
    payload: bytes

    @property
    def id(self) -> str:
        return self.payload.partition(b"\n")[0].decode()

    @property
    def data(self) -> bytes:
        return self.payload.partition(b"\n")[2]


class Segment:
    """One part of the log. Without a file it is memory alone."""

    __slots__ = ("base", "buffer", "fill", "number", "path", "seed", "size")

    def __init__(self, buffer: mmap.mmap, path: Path | None) -> None:
        self.buffer = buffer
        self.path = path
        self.size = len(buffer)
        self.number = self.base = self.fill = self.seed = 0

    def start(self, number: int) -> None:
        """Become the log's `number`th part. Until then a successor passes it over."""
        self.number = number
        self.base = number * self.size
        self.seed = number * _SPREAD
        self.fill = HEAD.size
        HEAD.pack_into(self.buffer, 0, MAGIC, number)

    @property
    def end(self) -> int:
        """The position behind it."""
        return self.base + self.size

    @property
    def filled(self) -> int:
        """The position behind its last record."""
        return self.base + self.fill

    def append(self, kind: int, payload: bytes) -> int:
        """Write a record; its position, or -1 when it does not fit."""
        at = self.fill
        body = at + 8
        end = body + len(payload)
        if end > self.size:
            return -1
        self.buffer[body:end] = payload
        measure = kind << LENGTH_BITS | len(payload)
        _pack_into(self.buffer, at, measure, (self.seed + at) & _STAMP_MASK)
        self.fill = end
        return self.base + at

    def record(self, position: int) -> Record | None:
        """The record there; None when there is none, or none that is whole."""
        at = position - self.base
        if not HEAD.size <= at <= self.size - RECORD.size:
            return None
        measure, stamp = RECORD.unpack_from(self.buffer, at)
        if stamp != (self.seed + at) & _STAMP_MASK:
            return None
        kind, length = measure >> LENGTH_BITS, measure & LENGTH_MASK
        body = at + RECORD.size
        if kind not in _KINDS or body + length > self.size:
            return None
        return Record(position, Kind(kind), self.buffer[body : body + length])

    def records(self, position: int = 0) -> Iterator[Record]:
        """Those from `position` on, or from its beginning if that is later."""
        at = max(position, self.base + HEAD.size)
        while (record := self.record(at)) is not None:
            yield record
            at += RECORD.size + len(record.payload)

    def retire(self) -> None:
        """Never to be read again, also if the process dies before it is removed."""
        self.buffer[: HEAD.size] = bytes(HEAD.size)

    def close(self) -> None:
        self.buffer.close()


_KINDS = frozenset(Kind)


def in_memory(size: int) -> Segment:
    """A segment that dies with the process."""
    return Segment(mmap.mmap(-1, size), None)


def create(path: Path, size: int) -> Segment:
    """A new file with all its space taken, so that a full disk is told here and
    not by a signal in the middle of a write. Raises `OSError`."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, size)
        return Segment(mmap.mmap(file, size), path)
    except (OSError, ValueError):
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)


def read_segments(folder: Path) -> list[Segment]:
    """A dead gateway's segments in order, ready to be read. Raises `OSError`."""
    found = []
    for path in folder.glob("*.log"):
        segment = _opened(path)
        if segment is not None:
            found.append(segment)
    return sorted(found, key=lambda segment: segment.number)


def _opened(path: Path) -> Segment | None:
    """None for one that holds nothing: retired, or not begun."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < HEAD.size + RECORD.size:
            return None
        # A private copy: reading must not change what another may have to read.
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    magic, number = HEAD.unpack_from(buffer, 0)
    if magic != MAGIC:
        buffer.close()
        return None
    segment = Segment(buffer, path)
    segment.start(number)
    return segment
