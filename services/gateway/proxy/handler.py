"""Serves HTTP requests to `/v1/*`."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from services.gateway.auth.access_control import AccessControl
from services.gateway.auth.self_service import SelfService, asks_about_itself
from services.gateway.content.body_reader import Reader
from services.gateway.proxy.attempts import Attempts
from services.gateway.proxy.exchange import HttpExchange
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.model_list.exchange import ModelsExchange
from services.gateway.proxy.services import HttpServices, Limits
from services.gateway.routing.selector import Selector
from services.gateway.routing.visible_models import lists_models
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request
from services.gateway.server.server import Plane
from services.gateway.upstream.client import UpstreamClient

CLIENT_GRACE_S = 5.0  # for the client to read the last bytes of an answer


class DataPlane(Plane):
    """Serves `/v1/*`, and ends requests whose time is up."""

    def __init__(
        self,
        limits: Limits,
        access: AccessControl,
        selector: Selector,
        in_flight: InFlight,
        upstream: UpstreamClient,
        reader: Reader,
    ) -> None:
        self.attempts = Attempts(
            selector, in_flight, reader, limits.attempts, replays=limits.replays
        )
        self._self_service = SelfService(access)
        self._under_way: set[HttpExchange] = set()
        self._services = HttpServices(
            limits,
            access,
            selector,
            in_flight,
            upstream,
            reader,
            self.attempts,
            asyncio.get_running_loop().time,
            in_flight.ledger.when_sent,
        )

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        services, under_way = self._services, self._under_way
        if request.method != "POST":
            if asks_about_itself(request):
                return self._self_service.serve(request, connection)
            if lists_models(request):
                return ModelsExchange(services, under_way, request, connection).run()
        return HttpExchange(services, under_way, request, connection).run()

    def check(self, now: float) -> None:
        """Give up clients that do not read their answers. The upstream's part ends at
        the deadline. What remains after it waits for the client, and must not hold its
        lease for ever."""
        for exchange in list(self._under_way):
            if now > exchange.deadline + CLIENT_GRACE_S:
                exchange.stop(stalled=True)

    def keep_alive(self) -> None:
        """Send a comment in each stream that was silent since the last call."""
        for exchange in self._under_way:
            exchange.keep_alive()

    def interrupt(self) -> bool:
        """End all requests under way: the gateway stops. Returns whether there were
        any."""
        under_way = list(self._under_way)
        for exchange in under_way:
            exchange.stop()
        return bool(under_way)
