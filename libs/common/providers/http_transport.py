"""An HTTP client's connections to addresses that people chose: through the same HTTP
proxies as requests, and to allowed addresses only."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable

import httpcore
import httpx

from libs.common.providers.destinations import Forbidden
from libs.common.providers.resolver import CheckedResolver
from libs.common.settings.http_proxies import DEFAULT_PORTS, Egress, Proxy


class AddressRefused(httpx.ConnectError):
    """Providers must not use this address."""


class EgressTransport(httpx.AsyncBaseTransport):
    """Sends each request directly or through the HTTP proxy for its origin."""

    def __init__(
        self, egress: Egress, context: ssl.SSLContext, resolver: CheckedResolver
    ) -> None:
        self._egress = egress
        self._context = context
        self._resolver = resolver
        self._transports: dict[tuple[str, Proxy | None], httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        port = url.port or DEFAULT_PORTS[url.scheme]
        proxy = self._egress.proxy_for(url.scheme, url.host, port)
        try:
            if proxy is not None:  # the proxy resolves the name
                self._resolver.check(url.scheme, url.host, port)
            return await self._transport(url.scheme, proxy).handle_async_request(
                request
            )
        except Forbidden as refusal:
            raise AddressRefused(str(refusal)) from None

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()

    def _transport(self, scheme: str, proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
        transport = self._transports.get((scheme, proxy))
        if transport is None:
            transport = self._transports[scheme, proxy] = self._new_transport(
                scheme, proxy
            )
        return transport

    def _new_transport(
        self, scheme: str, proxy: Proxy | None
    ) -> httpx.AsyncHTTPTransport:
        if proxy is None:
            return _Direct(self._context, _Checked(scheme, self._resolver))
        return httpx.AsyncHTTPTransport(
            verify=self._context, trust_env=False, proxy=self._proxy(proxy)
        )

    def _proxy(self, proxy: Proxy) -> httpx.Proxy:
        secure = proxy.scheme == "https"
        return httpx.Proxy(proxy.url, ssl_context=self._context if secure else None)


class _Direct(httpx.AsyncHTTPTransport):
    """Replaces the connection pool, because httpx does not accept a network backend."""

    def __init__(
        self, context: ssl.SSLContext, backend: httpcore.AsyncNetworkBackend
    ) -> None:
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=100,
            keepalive_expiry=5.0,
            network_backend=backend,
        )


class _Checked(httpcore.AsyncNetworkBackend):
    """Resolves hosts and connects only to the allowed addresses."""

    def __init__(self, scheme: str, resolver: CheckedResolver) -> None:
        self._scheme = scheme
        self._resolver = resolver
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            infos = await self._resolver.find(self._scheme, host, port)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        *others, last = [str(info[4][0]) for info in infos]
        for number, address in enumerate(others):
            # Leave time for the other addresses.
            part = timeout / (len(infos) - number) if timeout else None
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(
                    address, port, part, local_address, socket_options
                )
        return await self._network.connect_tcp(
            last, port, timeout, local_address, socket_options
        )

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
