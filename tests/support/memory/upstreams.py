"""Upstreams without sockets: dialing returns a wire whose other end the test holds."""

import asyncio

from libs.common.settings.http_proxies import Proxy
from services.gateway.upstream.connector import Connected, Factory
from services.gateway.upstream.origin import Origin
from tests.support.memory.transports import Wire


class Wires:
    """Stands in for a `Dialer`."""

    def __init__(self, proxy: Proxy | None = None) -> None:
        self.dialled: list[tuple[Origin, float]] = []
        self.wires: list[Wire] = []
        self.error: Exception | None = None
        self.closes = False
        self._proxy = proxy

    async def dial(
        self,
        origin: Origin,
        factory: Factory,
        timeout_s: float,
        *,
        tunnel: bool = False,
    ) -> Connected:
        self.dialled.append((origin, timeout_s))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        protocol = factory()
        wire = Wire(protocol)
        self.wires.append(wire)
        if self.closes:
            wire.hangs_up()
        return wire, protocol

    def forwarder(self, origin: Origin) -> Proxy | None:
        return self._proxy
