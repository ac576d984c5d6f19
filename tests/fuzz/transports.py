"""A transport without a socket, and a peer that feeds it bytes as TCP does: cut
anywhere, and not while reading is paused."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

TURNS = 6  # of the loop, until fed bytes are answered


class FakeTransport(asyncio.Transport):
    """Records what is written; closes and aborts like a socket's transport."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.written = bytearray()
        self.reading = True
        self.ended: str | None = None  # closed or aborted

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def write(self, data: Any) -> None:
        if self.ended is None:
            self.written += data

    def write_eof(self) -> None:
        self.close()

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.ended is not None

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if self.ended is None:
            self.ended = how
            loop = asyncio.get_running_loop()
            loop.call_soon(self._protocol.connection_lost, None)

    @property
    def protocol(self) -> asyncio.Protocol:
        return self._protocol


async def feed(transport: FakeTransport, pieces: Iterable[bytes]) -> None:
    """Feed the pieces, each after the previous one was processed."""
    left = deque(piece for piece in pieces if piece)
    while left and transport.ended is None:
        await turn()
        if not transport.reading:
            return  # the connection no longer reads
        transport.protocol.data_received(left.popleft())
    await turn()


async def turn() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)
