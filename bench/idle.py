"""Measures the memory of open, idle streams, and whether the gateway keeps them open.
Each stream has received its first event; the upstream then sends nothing."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bench.parts import wire
from bench.parts.servers import Server

COUNTS = (1000, 5000)
AT_ONCE = 100  # connections opened at the same time
WITHIN_S = 30.0
QUIET_S = 2.0  # how long the streams must stay open


@dataclass(frozen=True, slots=True)
class Idle:
    """`mb`: memory above that of the server without streams. `dropped`: streams that
    were closed."""

    streams: int
    mb: float
    dropped: int


class _Watcher(asyncio.Protocol):
    """One stream."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.transport: asyncio.Transport | None = None
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if b"response.created" in data and not self.begun.done():
            self.begun.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        if not self.begun.done():
            self.begun.set_result(None)


async def measure(server: Server) -> list[Idle]:
    """Results by number of streams, fewest first."""
    before = _memory_mb(server)
    watchers: list[_Watcher] = []
    found = []
    try:
        for count in COUNTS:
            while len(watchers) < count:
                watchers += await _open(server, len(watchers))
            await asyncio.sleep(QUIET_S)
            dropped = sum(watcher.ended for watcher in watchers)
            found.append(Idle(count, _memory_mb(server) - before, dropped))
    finally:
        for watcher in watchers:
            if watcher.transport is not None:
                watcher.transport.abort()
    return found


async def _open(server: Server, first: int) -> list[_Watcher]:
    loop = asyncio.get_running_loop()
    target = f"127.0.0.1:{server.port}"

    async def one(number: int) -> _Watcher:
        request = wire.request(target, f"idle-{number}", streamed=True, pace="held")
        _, watcher = await loop.create_connection(
            lambda: _Watcher(request), "127.0.0.1", server.port
        )
        return watcher

    opened = await asyncio.gather(*(one(first + n) for n in range(AT_ONCE)))
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*(watcher.begun for watcher in opened))
    return list(opened)


def _memory_mb(server: Server) -> float:
    """Memory of the server's processes in MB, shared pages divided among their
    users."""
    total = 0
    for pid in server.parties.server:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024
