"""The files of a journal: records in memory-mapped segments of one size.

A record is written by the process's own stores, without a system call, and lives
in the page cache from then on: `kill -9` does not lose it, the machine's crash may
(nothing is fsynced). The last thing written of a record is its stamp, which depends on
its place and its bytes: without it the rest is not there, be it torn or what a reused
segment holds of its earlier life. Where whole records follow one that is not, that one
is corrupt: it is skipped and counted."""

import mmap
import os
import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

SEGMENT_BYTES = 4 * 1024 * 1024
HEAD = struct.Struct("<8sII")  # magic, number, size
MAGIC = b"RPXJ0002"
MAGIC_UNCHECKED = b"RPXJ0001"  # of 0.1: no checksum in a stamp, no size in the head
RECORD = struct.Struct("<II")  # kind above the length; stamp
LENGTH_BITS = 24
LENGTH_MASK = (1 << LENGTH_BITS) - 1
_SPREAD = 0x9E3779B1  # odd: two segments' stamps differ at every offset
_STAMP_MASK = 0xFFFFFFFF
_pack_into = RECORD.pack_into
# The byte of a record's kind. What is not a record's head is text, mostly.
_CANDIDATE = re.compile(rb"[\x01-\x07]")


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
        return self.payload.partition(b"\n")[0].decode(errors="replace")

    @property
    def data(self) -> bytes:
        return self.payload.partition(b"\n")[2]


class Segment:
    """One part of the log. Without a file it is memory alone."""

    __slots__ = ("base", "buffer", "checked", "corrupt", "fill", "number", "path",
                 "seed", "size")  # fmt: skip

    def __init__(self, buffer: mmap.mmap, path: Path | None) -> None:
        self.buffer = buffer
        self.path = path
        self.size = len(buffer)
        self.number = self.base = self.fill = self.seed = 0
        self.checked = True  # do its stamps cover its records' bytes?
        self.corrupt = 0  # gaps that `records` skipped when last it read to the end

    def start(self, number: int) -> None:
        """Become the log's `number`th part. Until then a successor passes it over."""
        self._take_place(number)
        self.fill = HEAD.size
        HEAD.pack_into(self.buffer, 0, MAGIC, number, self.size)

    def reopen(self, number: int, size: int, *, checked: bool) -> None:
        """Be read once more, as the `number`th part of a dead gateway's log. The file
        may be shorter than it was."""
        self.size, self.checked = size, checked
        self._take_place(number)
        self.fill = len(self.buffer)

    def _take_place(self, number: int) -> None:
        self.number = number
        self.base = number * self.size
        self.seed = number * _SPREAD

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
        stamp = self.seed + at + crc32(payload, measure)
        _pack_into(self.buffer, at, measure, stamp & _STAMP_MASK)
        self.fill = end
        return self.base + at

    def record(self, position: int) -> Record | None:
        """The record there; None when there is none, or none that is whole."""
        at = position - self.base
        if not HEAD.size <= at <= self.fill - RECORD.size:
            return None
        measure, stamp = RECORD.unpack_from(self.buffer, at)
        kind, length = measure >> LENGTH_BITS, measure & LENGTH_MASK
        body = at + RECORD.size
        if kind not in _KINDS or body + length > self.fill:
            return None
        payload = self.buffer[body : body + length]
        checksum = crc32(payload, measure) if self.checked else 0
        if stamp != (self.seed + at + checksum) & _STAMP_MASK:
            return None
        return Record(position, Kind(kind), payload)

    def records(self, position: int = 0) -> Iterator[Record]:
        """Those from `position` on, or from its beginning if that is later."""
        at = max(position, self.base + HEAD.size)
        corrupt = 0
        while True:
            record = self.record(at)
            if record is None:
                record = self._next_whole(at)
                if record is None:
                    break
                corrupt += 1
            yield record
            at = record.position + RECORD.size + len(record.payload)
        self.corrupt = corrupt

    def _next_whole(self, position: int) -> Record | None:
        """The first whole record behind a corrupt one at `position`, if there is one:
        behind the last record nothing has this segment's stamp."""
        start = position - self.base + 1
        for found in _CANDIDATE.finditer(self.buffer, start, self.fill):
            record = self.record(self.base + found.start() - _KIND_AT)
            if record is not None and record.position > position:
                return record
        return None

    def retire(self) -> None:
        """Never to be read again, also if the process dies before it is removed."""
        self.buffer[: HEAD.size] = bytes(HEAD.size)

    def close(self) -> None:
        self.buffer.close()


_KINDS = frozenset(Kind)
_KIND_AT = 3  # bytes into a record


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


def read_segments(folder: Path) -> tuple[list[Segment], int]:
    """A dead gateway's segments in order, ready to be read, and how many files cannot
    be told to be one. Raises `OSError`."""
    opened = [(path, _opened(path)) for path in folder.glob("*.log")]
    buffers = [(path, buffer) for path, buffer in opened if buffer is not None]
    largest = max((len(buffer) for _, buffer in buffers), default=0)
    found, corrupt = [], 0
    for path, buffer in buffers:
        magic, number, size = HEAD.unpack_from(buffer, 0)
        if magic in (MAGIC, MAGIC_UNCHECKED):
            segment = Segment(buffer, path)
            segment.reopen(number, size or largest, checked=magic == MAGIC)
            found.append(segment)
        else:
            corrupt += magic != bytes(len(magic))  # zeros: retired, or not begun
            buffer.close()
    return sorted(found, key=lambda segment: segment.number), corrupt


def _opened(path: Path) -> mmap.mmap | None:
    """None for one that is too short to hold anything."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < HEAD.size + RECORD.size:
            return None
        # A private copy: reading must not change what another may have to read.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
