"""Memory that the workers of a gateway share, with a slot for the snapshot of each.

The parent creates it, and all workers inherit it, also those that replace dead ones: a
worker continues from what its predecessor in the slot counted. It has no name and no
file, so nothing is left when all processes ended.

A slot has a header, which says which half is valid, and two halves. A writer fills the
other half and then changes the header, so that a worker that is killed while it writes
leaves a valid half. Each half has a checksum, for readers that are overtaken."""

import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

DESCRIPTOR = "RPX_METRICS_FD"
POSITION = "RPX_WORKER"  # "2/4": the third of four
_HEADER = struct.Struct("<Q")
_HALF = struct.Struct("<II")  # length, checksum
PAGE = 4096
HALF_BYTES = 4 * 1024 * 1024  # sparse: only what is written takes memory
SLOT_BYTES = PAGE + 2 * HALF_BYTES
TRIES = 5


@dataclass(frozen=True, slots=True)
class Slots:
    """The shared memory, as the worker at `position` of `size` sees it."""

    descriptor: int
    position: int
    size: int

    def write(self, data: bytes) -> bool:
        """Replace this worker's snapshot. False if it is too large."""
        if len(data) > HALF_BYTES - _HALF.size:
            return False
        start = self.position * SLOT_BYTES
        other = 1 - self._valid_half(start)
        at = start + PAGE + other * HALF_BYTES
        _write(self.descriptor, _HALF.pack(len(data), zlib.crc32(data)) + data, at)
        _write(self.descriptor, _HEADER.pack(other), start)
        return True

    def read(self, position: int) -> bytes:
        """The snapshot of the worker at `position`; empty if there is none."""
        start = position * SLOT_BYTES
        for _ in range(TRIES):
            at = start + PAGE + self._valid_half(start) * HALF_BYTES
            head = os.pread(self.descriptor, _HALF.size, at)
            if len(head) < _HALF.size:
                return b""
            length, checksum = _HALF.unpack(head)
            data = os.pread(self.descriptor, length, at + _HALF.size)
            if zlib.crc32(data) == checksum:
                return data
        return b""

    def others(self) -> Iterator[tuple[int, bytes]]:
        """The snapshots of all other workers, with their positions."""
        for position in range(self.size):
            if position != self.position:
                yield position, self.read(position)

    def _valid_half(self, start: int) -> int:
        header = os.pread(self.descriptor, _HEADER.size, start)
        return int(_HEADER.unpack(header)[0] & 1) if len(header) == _HEADER.size else 0


def _write(descriptor: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written


def create() -> int:
    """The descriptor of new memory. For the parent."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("responses-proxy-metrics")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def environment(descriptor: int, position: int, size: int) -> dict[str, str]:
    """What tells a worker of its slot; pass the descriptor on."""
    return {DESCRIPTOR: str(descriptor), POSITION: f"{position}/{size}"}


def inherited(environ: Mapping[str, str]) -> Slots | None:
    """The slots of a worker; None in a gateway without a parent."""
    descriptor, place = environ.get(DESCRIPTOR), environ.get(POSITION, "")
    position, _, size = place.partition("/")
    if descriptor is None or not size:
        return None
    return Slots(int(descriptor), int(position), int(size))
