"""The gateway's application under cProfile, from its start to its shutdown.
BENCH_PROFILE names the file that gets the figures."""

import cProfile
import os

from services.gateway import app as gateway
from services.gateway.incoming import Receive, Scope, Send


class Profiled:
    """Passes everything on; the event loop's thread is profiled meanwhile."""

    def __init__(self, app: gateway.GatewayApp) -> None:
        self._app = app
        self._profile = cProfile.Profile()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        self._profile.enable()
        try:
            await self._app(scope, receive, send)
        finally:
            self._profile.disable()
            self._profile.dump_stats(os.environ["BENCH_PROFILE"])


def create_app() -> Profiled:
    return Profiled(gateway.create_app())
