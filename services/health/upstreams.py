"""How checks travel: by the same way as the gateways' requests, or they would say
nothing of it."""

import ssl

import httpx

from libs.common.egress import DEFAULT_PORTS, Egress, Proxy


class EgressTransport(httpx.AsyncBaseTransport):
    """Sends each request straight or through the proxy that leads to its origin."""

    def __init__(self, egress: Egress, context: ssl.SSLContext) -> None:
        self._egress = egress
        self._context = context
        self._ways: dict[Proxy | None, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        port = url.port or DEFAULT_PORTS[url.scheme]
        way = self._way(self._egress.proxy_for(url.scheme, url.host, port))
        return await way.handle_async_request(request)

    async def aclose(self) -> None:
        for way in self._ways.values():
            await way.aclose()

    def _way(self, proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
        way = self._ways.get(proxy)
        if way is None:
            way = self._ways[proxy] = httpx.AsyncHTTPTransport(
                verify=self._context,
                trust_env=False,
                proxy=self._proxy(proxy) if proxy is not None else None,
            )
        return way

    def _proxy(self, proxy: Proxy) -> httpx.Proxy:
        secure = proxy.scheme == "https"
        return httpx.Proxy(proxy.url, ssl_context=self._context if secure else None)
