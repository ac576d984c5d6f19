"""One address for several gateways: a TCP balancer that goes to the next backend
only when connecting fails, so that whatever a backend accepted and did not serve
is lost for the client."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from tests.support.sockets import joined, visited


@asynccontextmanager
async def balancing(ports: Sequence[int]) -> AsyncIterator[int]:
    """The balancer's port."""
    turns = count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(turns)
        for offset in range(len(ports)):
            port = ports[(first + offset) % len(ports)]
            try:
                onward = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                continue
            await joined((reader, writer), onward)
            return

    async with visited(serve) as visits:
        yield visits.port
