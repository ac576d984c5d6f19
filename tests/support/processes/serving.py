"""Servers of tests. Those of asyncio leave connections open when they end (before
Python 3.12), which fails the later test in which the connections are collected."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(
    handle: Handle,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Listen until the context ends: the port. A connection is closed when `handle`
    returns or its client left (OSError, EOFError), and aborted when the context ends,
    whether or not `handle` began. Other errors of `handle` are raised at the end."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def accept() -> None:
        with suppress(BlockingIOError, ConnectionError):  # it left again
            sock = listener.accept()[0]
            task = loop.create_task(_serve(handle, sock, tls))
            tasks.add(task)
            # A task that is canceled before it runs takes nothing.
            task.add_done_callback(lambda _: sock.close())

    with socket.create_server((host, port), family=family) as listener:
        listener.setblocking(False)
        # For its connections: asyncio sets it only where the protocol is named.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.add_reader(listener, accept)
        try:
            yield listener.getsockname()[1]
        finally:
            loop.remove_reader(listener)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):  # not a cancellation
            raise error


async def _serve(
    handle: Handle, sock: socket.socket, tls: ssl.SSLContext | None
) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    try:
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=tls
        )
    except OSError:  # it left again, or its TLS handshake failed
        return
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    try:
        with suppress(OSError, EOFError):
            await handle(reader, writer)
            writer.close()
            await writer.wait_closed()
    finally:
        _abort(transport)


def _abort(transport: asyncio.WriteTransport) -> None:
    """Python 3.11 cannot abort a connection that has ended: with TLS there is an error;
    without, one is logged if it was closed and its bytes were all sent."""
    with suppress(AttributeError):
        plain = transport.get_extra_info("ssl_object") is None
        ended = transport.is_closing() and not transport.get_write_buffer_size()
        if not (plain and ended):
            transport.abort()
