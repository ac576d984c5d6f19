"""Opens connections to origins: over IPv6 or IPv4, with TLS, directly or through a
proxy."""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import cast

import aiohappyeyeballs

from libs.common.providers.destinations import Destinations, Forbidden
from libs.common.providers.resolver import AddressInfo, CheckedResolver, Resolver
from libs.common.runtime.tls import ResumingContext, resuming_context, tls_cause
from libs.common.settings.http_proxies import Egress, Proxy
from services.gateway.upstream.errors import NoFreeConnection, NotSent
from services.gateway.upstream.origin import Origin
from services.gateway.upstream.tunnel import Tunnel

# RFC 8305: how long to try one address before the next is tried in parallel.
NEXT_ADDRESS_S = 0.25
# A stream may be silent for minutes. NATs and firewalls drop silent connections, and
# a peer that is gone is silent as well.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
# This machine has run out of something: not the upstream's fault.
OURS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}

Factory = Callable[[], asyncio.Protocol]
Connected = tuple[asyncio.Transport, asyncio.Protocol]


class Dialer:
    """Opens connections. One per process, which shares its TLS sessions."""

    def __init__(
        self,
        egress: Egress | None = None,
        context: ResumingContext | None = None,
        resolver: Resolver | None = None,
        destinations: Destinations | None = None,
    ) -> None:
        """`destinations` restricts which origins may be dialed."""
        self._egress = egress or Egress()
        self._context = context
        self._resolver = resolver or Resolver()
        self._checked = (
            CheckedResolver(destinations, self._resolver) if destinations else None
        )

    async def dial(
        self,
        origin: Origin,
        protocol_factory: Factory,
        timeout_s: float,
        *,
        tunnel: bool = False,
    ) -> Connected:
        """Connect to `origin`. For plain http this connects to the proxy that forwards
        there (see `forwarder`), unless `tunnel` is set. Raises `NotSent`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        proxy = self.proxy_for(origin)
        if proxy is None:
            addresses = await self._allowed(origin, deadline)
            return await self._straight(origin, addresses, protocol_factory, deadline)
        if self._checked is not None:
            # The proxy resolves names; only literal addresses can be checked here.
            with _refusing():
                self._checked.check(*origin)
        if origin.scheme == "http" and not tunnel:
            return await self._to_proxy(proxy, protocol_factory, deadline)
        return await self._through(proxy, origin, protocol_factory, deadline)

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy for connections to `origin`, if there is one."""
        return self._egress.proxy_for(origin.scheme, origin.host, origin.port)

    def forwarder(self, origin: Origin) -> Proxy | None:
        """The proxy that forwards requests to `origin`, whose heads `forwarded_head`
        rewrites. Plain http is forwarded and not tunneled: most proxies allow CONNECT
        only to port 443."""
        return self.proxy_for(origin) if origin.scheme == "http" else None

    async def _allowed(self, origin: Origin, deadline: float) -> list[AddressInfo]:
        """The addresses of `origin` that may be dialed."""
        if self._checked is None:
            return await self._found(origin, deadline)
        async with _step("looking up its host", deadline):
            with _refusing():
                return await self._checked.find(*origin)

    async def _found(self, origin: Origin, deadline: float) -> list[AddressInfo]:
        async with _step("looking up its host", deadline):
            return await self._resolver.find(origin.host, origin.port)

    async def _connect(
        self, addresses: list[AddressInfo], deadline: float
    ) -> socket.socket:
        async with _step("connecting", deadline):
            connected = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=NEXT_ADDRESS_S
            )
        _tune(connected)
        return connected

    @property
    def tls(self) -> ResumingContext:
        """Created when first needed: reading the system's certificates takes time."""
        if self._context is None:
            self._context = resuming_context()
        return self._context

    async def _straight(
        self,
        origin: Origin,
        addresses: list[AddressInfo],
        factory: Factory,
        deadline: float,
    ) -> Connected:
        loop = asyncio.get_running_loop()
        # From here on the transport owns the socket, and closes it on cancellation. If
        # it were closed here, another connection could get its descriptor.
        connected = await self._connect(addresses, deadline)
        if origin.scheme == "http":
            return await loop.create_connection(factory, sock=connected)
        async with self._handshake(origin, deadline):
            return await loop.create_connection(
                factory,
                sock=connected,
                ssl=self.tls,
                server_hostname=origin.host,
                ssl_handshake_timeout=_left(deadline),
            )

    async def _to_proxy(
        self, proxy: Proxy, factory: Factory, deadline: float
    ) -> Connected:
        hop = Origin(proxy.scheme, proxy.host, proxy.port)
        try:
            # The operator chose the proxy: `destinations` does not restrict it.
            addresses = await self._found(hop, deadline)
            return await self._straight(hop, addresses, factory, deadline)
        except NotSent as error:
            raise NotSent(f"the proxy cannot be used: {error}") from error

    async def _through(
        self, proxy: Proxy, origin: Origin, factory: Factory, deadline: float
    ) -> Connected:
        outer, tunnel = await self._to_proxy(
            proxy, lambda: Tunnel(proxy, origin), deadline
        )
        try:
            async with _step("asking the proxy", deadline):
                await cast(Tunnel, tunnel).opened()
            protocol = factory()
            inner = await self._within(outer, protocol, origin, deadline)
            if inner.is_closing():
                raise NotSent("the proxy closed the connection")
        except BaseException:
            outer.abort()
            raise
        protocol.connection_made(inner)
        return inner, protocol

    async def _within(
        self,
        outer: asyncio.Transport,
        protocol: asyncio.Protocol,
        origin: Origin,
        deadline: float,
    ) -> asyncio.Transport:
        """Connect `protocol` to the inside of a tunnel."""
        if origin.scheme == "http":
            outer.set_protocol(protocol)
            return outer
        async with self._handshake(origin, deadline):
            inner = await asyncio.get_running_loop().start_tls(
                outer,
                protocol,
                self.tls,
                server_hostname=origin.host,
                ssl_handshake_timeout=_left(deadline),
            )
        return cast(asyncio.Transport, inner)

    @asynccontextmanager
    async def _handshake(self, origin: Origin, deadline: float) -> AsyncIterator[None]:
        try:
            async with _step("the TLS handshake", deadline):
                yield
        except NotSent:
            self.tls.forget(origin.host)
            raise


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except Forbidden as refusal:
        raise NotSent(str(refusal)) from None


def _left(deadline: float) -> float:
    """Seconds until `deadline`, above 0, as asyncio requires."""
    return max(deadline - asyncio.get_running_loop().time(), 0.001)


@asynccontextmanager
async def _step(doing: str, deadline: float) -> AsyncIterator[None]:
    """One step of dialing. Raises its errors as `NotSent`, with messages that contain
    no address and no secret."""
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise NotSent(f"{doing} took too long") from None
    except ssl.SSLError as error:
        raise NotSent(f"{doing} failed: {tls_cause(error)}") from error
    except OSError as error:
        kind = NoFreeConnection if error.errno in OURS else NotSent
        raise kind(f"{doing} failed: {_cause(error)}") from error


def _cause(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return str(error.strerror or "no address")
    if isinstance(error, ConnectionError) and not error.errno:
        return "the connection was closed"
    # The message of an error for several addresses contains them; its number does not.
    return os.strerror(error.errno) if error.errno else "no address answers"


def _tune(connected: socket.socket) -> None:
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # macOS has other names for some
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
