"""A transport without a socket: records writes, and reports the end to its protocol one
loop turn later, as real transports do."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from typing import cast

from hypothesis import strategies as st


class Wire(asyncio.Transport):
    """`sent` is all that was written, `writes` the same call by call."""

    def __init__(self, protocol: asyncio.Protocol | None = None) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.BaseProtocol | None = protocol
        self._over = False
        self.writes: list[bytes] = []
        self.reading = True
        self.closed = False  # orderly, not aborted
        self.aborted = False
        self.eof = False
        self.unsent = 0  # bytes in the write buffer, set by the test
        self.half_closes = True
        if protocol is not None:
            protocol.connection_made(self)

    @property
    def sent(self) -> bytes:
        return b"".join(self.writes)

    def take(self) -> bytes:
        """What was written since the last call."""
        sent, self.writes = self.sent, []
        return sent

    def feed(self, *pieces: bytes) -> None:
        """Pass bytes to the protocol like a socket's reads; none once it is closed."""
        for piece in pieces:
            if piece and not self.is_closing():
                cast(asyncio.Protocol, self._protocol).data_received(piece)

    def hangs_up(self, error: Exception | None = None) -> None:
        """The peer disconnects."""
        if not self._over:
            self._over = True
            cast(asyncio.Protocol, self._protocol).connection_lost(error)

    # asyncio.Transport -------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True
        self._end()

    def abort(self) -> None:
        self.aborted = True
        self._end()

    def _end(self) -> None:
        self._loop.call_soon(self.hangs_up)

    def is_closing(self) -> bool:
        return self.closed or self.aborted or self._over

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def can_write_eof(self) -> bool:
        return self.half_closes

    def write_eof(self) -> None:
        self.eof = True

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol


def cut_in_two(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Cut at every position."""
    for position in range(1, len(data)):
        yield data[:position], data[position:]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut_at(data: bytes, positions: Sequence[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(p for p in positions if 0 < p < len(data))})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def cuts(longest: int) -> st.SearchStrategy[list[int]]:
    """Positions for `cut_at`."""
    return st.lists(st.integers(1, longest), max_size=12)
