"""An attacker's web site: serves pages to a browser and records requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

BLANK = b"<!doctype html><title>somebody else's page</title>"


@dataclass
class Site:
    """Listens on loopback and records all requests."""

    port: int = 0
    heard: list[bytes] = field(default_factory=list)

    @property
    def stolen(self) -> list[bytes]:
        """Requests that carry an upstream key."""
        return [request for request in self.heard if b"sk-secret" in request]

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = b"\r\n\r\n"
        try:
            request = await reader.readuntil(head)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        self.heard.append(request)
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n"
        writer.write(answer + b"content-length: %d%b%b" % (len(BLANK), head, BLANK))
        writer.close()


@asynccontextmanager
async def attacking() -> AsyncIterator[Site]:
    """The site, on the same port of 127.0.0.1 and 127.0.0.2."""
    site = Site()
    first = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(site.serve, "127.0.0.2", site.port)
    async with first, second:
        yield site
