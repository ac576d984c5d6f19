"""The process of a gateway: the gateway itself, or the parent of several workers."""

import contextlib
import os
import resource
import sys
from collections.abc import Mapping

import uvloop

from libs.cli.process.lifeline import die_with_parent
from libs.common.errors import SettingError
from libs.common.runtime import logs
from libs.common.runtime.listening import AddressTaken, bind
from libs.common.runtime.program import collect_seldom
from libs.common.settings.http_proxies import Egress
from libs.common.settings.services import GatewaySettings
from services.gateway.app import Gateway
from services.gateway.scrape import slots
from services.gateway.server import workers


def run(environ: Mapping[str, str] | None = None) -> None:
    """Serves until SIGTERM. Exits with status 2 when a setting is invalid or the
    address is in use."""
    environ = os.environ if environ is None else environ
    try:
        settings = GatewaySettings.read(environ)
        Egress.read(environ)
        inherited = workers.inherited()
        listening = inherited or bind(settings.host, settings.port)
    except (SettingError, AddressTaken) as error:
        sys.stderr.write(f"responses-proxy: {error}\n")
        raise SystemExit(2) from None
    logs.configure("gateway", settings.log_level)
    if settings.gateway_workers > 1 and inherited is None:
        raise SystemExit(workers.supervise(settings, listening))
    if inherited is not None:
        die_with_parent()
        if workers.orphaned():
            raise SystemExit(1)

    _take_descriptors()

    async def serve() -> None:
        await Gateway(settings, slots.inherited(os.environ)).run(listening)

    # Objects created so far live as long as the process, and those of requests form no
    # reference cycles. So the collector should rarely run.
    collect_seldom(100_000, 20, 50)
    uvloop.run(serve())


def _take_descriptors() -> None:
    """Raises the soft limit of open files to the hard limit: each request needs two
    descriptors, and the usual soft limit of 1024 only exists for select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
