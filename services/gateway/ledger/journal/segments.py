"""The files of a journal: memory-mapped segments of one size that hold records.

A record is written to the mapping without a system call, and is in the page cache from
then on: it survives `kill -9`, but not a crash of the machine, because nothing is
fsynced. A record's stamp is written last and depends on its position and its bytes. So
a torn record has no valid stamp, nor has a record that a reused segment still holds
from its previous use. An invalid record before valid ones is corrupt: it is skipped and
counted."""

import mmap
import os
import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

SEGMENT_BYTES = 4 * 1024 * 1024
HEAD = struct.Struct("<8sII")  # magic, number, size
MAGIC = b"RPXJ0002"
MAGIC_UNCHECKED = b"RPXJ0001"  # 0.1: stamps without checksum, heads without size
RECORD = struct.Struct("<II")  # kind << LENGTH_BITS | payload length; stamp
LENGTH_BITS: Final = 24
LENGTH_MASK = (1 << LENGTH_BITS) - 1
_SPREAD = 0x9E3779B1  # odd, so stamps of different segments differ at every offset
_STAMP_MASK: Final = 0xFFFFFFFF
_pack_into: Final = RECORD.pack_into
_crc32: Final = crc32
# The kind byte of a record's head; rare in payloads, which are text.
_CANDIDATE = re.compile(rb"[\x01-\x07]")


class Kind(IntEnum):
    """Payloads are an id, a newline and JSON, except that of CHECK."""

    ACCEPTED = 1  # a request began: its event so far, without the last brace
    CARRIED = 2  # a copy of ACCEPTED, because its segment is freed
    DECISION = 3
    REQUEST = 4  # a request ended: its event
    ADOPTED = 5  # the request event of a crashed gateway
    CHECK = 6  # counters, and the position up to which SQL has all events
    GATEWAY = 7  # a gateway event


class Record(NamedTuple):
    """`position` is the offset in the journal, in bytes since its start."""

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
    """One part of the log, in a file or, without a `path`, in memory only."""

    __slots__ = ("base", "buffer", "checked", "corrupt", "fill", "number", "path",
                 "seed", "size")  # fmt: skip

    def __init__(self, buffer: mmap.mmap, path: Path | None) -> None:
        self.buffer = buffer
        self.path = path
        self.size = len(buffer)
        self.number = self.base = self.fill = self.seed = 0
        self.checked = True  # do the stamps include a checksum of the payload?
        self.corrupt = 0  # gaps found by the last complete run of `records`

    def start(self, number: int) -> None:
        """Makes it the log's `number`th segment. Before that, recovery ignores it."""
        self._take_place(number)
        self.fill = HEAD.size
        HEAD.pack_into(self.buffer, 0, MAGIC, number, self.size)

    def reopen(self, number: int, size: int, *, checked: bool) -> None:
        """Prepares it for reading as the `number`th segment of a crashed gateway's
        log. The file may have been truncated."""
        self.size, self.checked = size, checked
        self._take_place(number)
        self.fill = len(self.buffer)

    def _take_place(self, number: int) -> None:
        self.number = number
        self.base = number * self.size
        self.seed = number * _SPREAD

    @property
    def end(self) -> int:
        """The position after the segment."""
        return self.base + self.size

    @property
    def filled(self) -> int:
        """The position after its last record."""
        return self.base + self.fill

    def append(self, kind: int, payload: bytes) -> int:
        """Writes a record. Returns its position, or -1 when it does not fit."""
        at = self.fill
        body = at + 8
        end = body + len(payload)
        if end > self.size:
            return -1
        self.buffer[body:end] = payload
        measure = kind << LENGTH_BITS | len(payload)
        stamp = self.seed + at + _crc32(payload, measure)
        _pack_into(self.buffer, at, measure, stamp & _STAMP_MASK)
        self.fill = end
        return self.base + at

    def record(self, position: int) -> Record | None:
        """The record at `position`; None when there is no valid one."""
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
        """The valid records from `position` on."""
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
        """The first valid record after a corrupt one at `position`, if any. After the
        last record no bytes have this segment's stamp."""
        start = position - self.base + 1
        for found in _CANDIDATE.finditer(self.buffer, start, self.fill):
            record = self.record(self.base + found.start() - _KIND_AT)
            if record is not None and record.position > position:
                return record
        return None

    def retire(self) -> None:
        """Invalidates it, so that recovery ignores it even if it is never removed."""
        self.buffer[: HEAD.size] = bytes(HEAD.size)

    def close(self) -> None:
        self.buffer.close()


_KINDS = frozenset(Kind)
_KIND_AT = 3  # bytes into a record


def in_memory(size: int) -> Segment:
    """A segment that is lost with the process."""
    return Segment(mmap.mmap(-1, size), None)


def create(path: Path, size: int) -> Segment:
    """A segment in a new file. Allocates all its space, so that a full disk is an
    `OSError` here and not a SIGBUS during a later write."""
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
    """A crashed gateway's segments in order, ready for reading, and the number of files
    whose head is corrupt. Raises `OSError`."""
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
            corrupt += magic != bytes(len(magic))  # zeros: retired or not started
            buffer.close()
    return sorted(found, key=lambda segment: segment.number), corrupt


def _opened(path: Path) -> mmap.mmap | None:
    """None for a file that is too short for a record."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < HEAD.size + RECORD.size:
            return None
        # Copy on write: another gateway may have to read the file after us.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
