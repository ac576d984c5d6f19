"""Tunnels through a proxy (CONNECT), and requests that a proxy forwards."""

import asyncio
import re
from typing import cast

from libs.common.settings.http_proxies import Proxy
from services.gateway.upstream.errors import NotSent
from services.gateway.upstream.origin import Origin

LARGEST_ANSWER = 16_384
STATUS = re.compile(rb"HTTP/1\.\d ([1-5]\d\d)(?: |\r|$)")


class Tunnel(asyncio.Protocol):
    """Asks a proxy for a tunnel. Another protocol then takes over the transport."""

    def __init__(self, proxy: Proxy, origin: Origin) -> None:
        self._ask = connect_head(proxy, origin)
        self._answer = b""
        self._opened = asyncio.get_running_loop().create_future()

    async def opened(self) -> None:
        """Wait for the proxy's response. Raises `NotSent`."""
        await self._opened

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._ask)

    def data_received(self, data: bytes) -> None:
        if self._opened.done():
            return
        self._answer += data
        head, end, more = self._answer.partition(b"\r\n\r\n")
        if not end and len(self._answer) <= LARGEST_ANSWER:
            return
        status = STATUS.match(head)
        if not end or status is None:
            self._fail("the proxy sent no answer to CONNECT")
        elif status[1].startswith(b"2"):
            self._open(more)
        else:
            self._fail(f"the proxy refused with {status[1].decode()}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the proxy closed the connection")

    def _open(self, more: bytes) -> None:
        if more:  # in TLS the client speaks first
            self._fail("the proxy sent more than its answer to CONNECT")
        else:
            self._opened.set_result(None)

    def _fail(self, cause: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(NotSent(cause))
            self._opened.exception()  # retrieved: asyncio logs no error if nobody waits


def connect_head(proxy: Proxy, origin: Origin) -> bytes:
    """The request that asks `proxy` for a tunnel to `origin`."""
    authority = origin.authority.encode("ascii")
    return b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (
        authority,
        authority,
        _authorization(proxy),
    )


def forwarded_head(head: bytes, proxy: Proxy, origin: Origin) -> bytes:
    """A request's head for a proxy that forwards the request: with the complete URL
    and the proxy's credentials."""
    method, _, rest = head.partition(b" ")
    line, _, headers = rest.partition(b"\r\n")
    url = b"http://" + origin.authority.encode("ascii")
    return b"%b %b%b\r\n%b%b" % (method, url, line, _authorization(proxy), headers)


def _authorization(proxy: Proxy) -> bytes:
    if not proxy.authorization:
        return b""
    return b"proxy-authorization: %b\r\n" % proxy.authorization
