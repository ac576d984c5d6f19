"""A small HTTP proxy: tunnels by CONNECT and forwards plain http."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.support.clients.sockets import joined
from tests.support.processes.serving import serving

HEAD_END = b"\r\n\r\n"


class EgressProxy:
    """`heads` are the request heads it received. Every name resolves to this machine.
    `refusal` is an answer to send instead."""

    def __init__(self, refusal: bytes | None = None) -> None:
        self.heads: list[bytes] = []
        self.refusal = refusal
        self.port = 0

    @property
    def lines(self) -> list[str]:
        """The request lines."""
        return [head.partition(b"\r\n")[0].decode() for head in self.heads]

    async def serve(
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


@asynccontextmanager
async def running_proxy(
    refusal: bytes | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[EgressProxy]:
    """A proxy that listens until the context ends."""
    proxy = EgressProxy(refusal)
    async with serving(proxy.serve, tls=tls) as proxy.port:
        yield proxy
