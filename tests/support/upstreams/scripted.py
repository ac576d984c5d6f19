"""Upstreams that answer what a test wrote down, and clients for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.gateway.upstream.client import Answer, Origin, Timeouts, UpstreamClient
from services.gateway.upstream.connection import NO_TIMEOUTS
from tests.support.processes.serving import Handle, serving
from tests.support.upstreams.asking import answer_of

REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"

CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"


class Peer:
    """A server that answers each request with the next of `answers`; the last is
    repeated. None closes the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.gone = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, EOFError):
            pass
        finally:
            self.gone += 1
            writer.close()

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length: 2" in head:
            await reader.readexactly(2)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            return False
        writer.write(answer)
        await writer.drain()
        return b"connection: close" not in answer


@asynccontextmanager
async def listening(handle: Handle) -> AsyncIterator[Origin]:
    """A server whose connections stay open when `handle` returns, unless it closed
    them, until the client disconnects."""

    async def serve(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        await handle(r, w)
        if not w.is_closing():
            await r.read()

    async with serving(serve) as port:
        yield Origin("http", "127.0.0.1", port)


@asynccontextmanager
async def client(patience: Timeouts = NO_TIMEOUTS) -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient(1.0, patience)

    async def look() -> None:
        while True:
            await asyncio.sleep(0.01)
            made.check(asyncio.get_running_loop().time())

    looking = asyncio.create_task(look())
    yield made
    looking.cancel()
    made.close()


async def send(
    made: UpstreamClient, origin: Origin, *, seconds: float = 5.0, head: bool = False
) -> Answer:
    deadline = asyncio.get_running_loop().time() + seconds
    return await answer_of(made, origin, REQUEST, b"{}", deadline, bodiless=head)


async def body(answer: Answer) -> bytes:
    whole = b""
    while chunk := await answer.next():
        whole += chunk
    return whole
