"""A small HTTP proxy: tunnels by CONNECT and forwards plain http."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.support.clients.sockets import joined

HEAD_END = b"\r\n\r\n"


class EgressProxy:
    """`heads` are the request heads it received. Every name resolves to this machine.
    `refusal` is an answer to send instead."""

    def __init__(self, refusal: bytes | None = None) -> None:
        self.heads: list[bytes] = []
        self.refusal = refusal
        self.port = 0
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def lines(self) -> list[str]:
        """The request lines."""
        return [head.partition(b"\r\n")[0].decode() for head in self.heads]

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        # A canceled handler upsets asyncio's streams (Python 3.11).
        with suppress(OSError, EOFError, asyncio.CancelledError):
            await self._one(reader, writer)
        writer.close()

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(HEAD_END)
        self.heads.append(head)
        if self.refusal is not None:
            writer.write(self.refusal)
            await writer.drain()
            return
        method, target, _ = head.split(b" ", 2)
        tunnel = method == b"CONNECT"
        url = urlsplit(b"//" + target if tunnel else target)
        there, onward = await asyncio.open_connection("127.0.0.1", url.port or 80)
        if tunnel:
            writer.write(b"HTTP/1.1 200 Connection established" + HEAD_END)
        else:
            onward.write(head.replace(b"http://" + url.netloc, b"", 1))
        await joined((reader, writer), (there, onward))

    async def end(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving)


@asynccontextmanager
async def running_proxy(
    refusal: bytes | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[EgressProxy]:
    """A proxy that listens until the context ends."""
    proxy = EgressProxy(refusal)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
