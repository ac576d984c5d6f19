"""Listening sockets of tests, on one address, with or without TLS."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from tests.support.processes.serving import Handle, serving

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Visits:
    """What a server recorded of its clients."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.come = 0
        self.gone = 0

    async def all_gone(self) -> bool:
        return 0 < self.come == self.gone


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back everything received."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read and send nothing."""
    while await reader.read(65_536):
        pass


def relay_to(port: int) -> Handle:
    """Forward to another port of this machine, optionally adding TLS in front."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", port)
        await joined((reader, writer), onward)

    return relay


async def joined(one: Streams, other: Streams) -> None:
    """Copy bytes both ways until one side ends; then close the other."""
    copies = [
        asyncio.ensure_future(_copy(one[0], other[1])),
        asyncio.ensure_future(_copy(other[0], one[1])),
    ]
    try:
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
    finally:
        other[1].close()  # first, because the wait may be canceled
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def visited(
    handle: Handle,
    host: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    port: int = 0,
) -> AsyncIterator[Visits]:
    """A server that listens until the context ends, and counts its clients."""
    visits = Visits(0)

    async def counted(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        visits.come += 1
        try:
            await handle(r, w)
        finally:
            visits.gone += 1

    async with serving(counted, host, port, tls) as visits.port:
        yield visits


@contextmanager
def unanswering() -> Iterator[int]:
    """A port of 127.0.0.1 that drops connection attempts: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                with suppress(BlockingIOError):
                    one.connect(("127.0.0.1", port))
            yield port
        finally:
            for one in waiting:
                one.close()
