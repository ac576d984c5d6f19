"""Composition root of the gateway: what one worker holds, and how it lives and
ends."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import time
from typing import Any

import falcon.asgi
import httpx
import structlog
from falcon.asgi import Request, Response

from libs.common.browser_guard import CHECKED
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.providers.credentials import Credentials
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from libs.common.proxy_keys import KeyLimits, KeyTable
from libs.common.redis.shared_connection import SharedConnection, connect
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.runtime.tls import resuming_context
from libs.common.settings.http_proxies import Egress
from libs.common.settings.services import GatewaySettings
from services.gateway import metrics
from services.gateway.admin.asgi import ControlPlane
from services.gateway.admin.forwarding import Probes, RouterForwarder
from services.gateway.auth.access_control import AccessControl
from services.gateway.auth.authenticator import Authenticator
from services.gateway.capture.worker import make_capturer
from services.gateway.content.body_reader import Reader
from services.gateway.errors import Problem
from services.gateway.heartbeat import Heartbeat
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.ledger.journal.journal import Journal
from services.gateway.ledger.journal.recovery import JournalRecovery
from services.gateway.ledger.ledger import Ledger
from services.gateway.proxy.handler import DataPlane
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.services import Limits
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.routing.offline import OfflineRouting
from services.gateway.routing.owner_lookup import OwnerLookup
from services.gateway.routing.selector import Selector
from services.gateway.server.body_memory import Room
from services.gateway.server.browser_guard import BrowserGuard
from services.gateway.server.connection import ClientTimeouts
from services.gateway.server.server import Bounds, Server
from services.gateway.upstream.client import Timeouts, UpstreamClient
from services.gateway.upstream.connector import Dialer
from services.gateway.websocket.handler import SocketPlane
from services.gateway.websocket.leases import SocketLeases
from services.gateway.websocket.turns import TurnContext
from services.gateway.websocket.upstream import Opener

log = structlog.get_logger()

STORED_WITHIN_S = 0.5  # ingest's time to store what came last
LAST_WORDS_S = 0.2  # for answers that are ended by us to reach their clients


class Gateway:
    """Everything a gateway worker holds, built when the worker starts."""

    def __init__(self, settings: GatewaySettings) -> None:
        terms = Terms(
            session_ttl_ms=int(settings.session_ttl_seconds * 1000),
            id_ttl_ms=int(settings.affinity_ttl_seconds * 1000),
            cooldown_ms=int(settings.cooldown_seconds * 1000),
        )
        limits = Limits(
            body_bytes=settings.max_body_bytes,
            attempts=settings.max_attempts,
            request_s=settings.request_timeout_seconds,
            pause_ms=terms.cooldown_ms,
            replays=settings.replay_without_reasoning,
        )
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.redis = SharedConnection(connect(settings.redis_url))
        self.routing = RoutingFunctions(self.redis, settings.telemetry_stream, terms)
        rules = ProviderRules.read(os.environ)
        self.catalogue = GatewayCatalogue(
            self.routing, Credentials(os.environ, Sealer(settings.fernet_keys), rules)
        )
        journals = settings.data_dir / "journal"
        self.journal = Journal(
            journals, self.id, int(time.time() * 1000), settings.journal_max_bytes
        )
        self.delivery = JournalDelivery(
            self.journal, self.redis, settings.telemetry_stream
        )
        self._recovery = JournalRecovery(journals, self.journal, self.routing)
        dialer = Dialer(
            Egress.read(os.environ),
            resuming_context(settings.upstream_ca_file),
            destinations=rules.destinations,
        )
        self.upstream = UpstreamClient(
            settings.connect_timeout_seconds,
            Timeouts(
                settings.first_byte_timeout_seconds, settings.idle_timeout_seconds
            ),
            dialer,
            settings.upstream_connections_per_worker,
        )
        # Whatever proxy there is leads to upstreams, not to the router.
        self.router = httpx.AsyncClient(
            base_url=settings.router_url,
            headers={CHECKED: "gateway"},
            timeout=30.0,
            trust_env=False,
        )
        offline = OfflineRouting(self.catalogue, terms.cooldown_ms)
        self.capturer = make_capturer(settings)
        ledger = Ledger(self.routing, self.journal, offline.judged, self.capturer)
        local = offline.local
        search = OwnerLookup(local.sessions, local.ids, self.router)
        selector = Selector(
            self.routing,
            self.catalogue,
            offline,
            search,
            ledger,
            settings.heartbeat_seconds,
        )
        authenticator = Authenticator(
            KeyTable(self.redis), required=settings.require_keys
        )
        access = AccessControl(
            authenticator, KeyLimits(self.redis), strict=settings.isolates_strictly
        )
        reader = Reader()
        self.in_flight = InFlight(self.id, ledger, offline, access)
        self.data_plane = DataPlane(
            limits, access, selector, self.in_flight, self.upstream, reader
        )
        context = TurnContext(
            access,
            SocketLeases(self.routing, selector, ledger),
            self.in_flight,
            settings.request_timeout_seconds,
            selector,
            reader,
        )
        share = settings.body_memory_bytes // settings.gateway_workers
        room = Room(max(share, settings.max_body_bytes))
        self.sockets = SocketPlane(
            context,
            limits,
            self.data_plane.attempts,
            Opener(dialer, settings.connect_timeout_seconds),
            room,
        )
        self.heartbeat = Heartbeat(
            self.id,
            self.redis,
            self.routing,
            self.catalogue,
            self.delivery,
            self.in_flight,
            authenticator,
        )
        self.readiness = Probes(
            self.catalogue,
            self.delivery,
            lambda: self.redis.up,
            self.router,
            authenticator,
        )
        per_worker = -(-settings.max_connections // settings.gateway_workers)
        self.server = Server(
            self.data_plane,
            ControlPlane(
                _control(self.readiness, RouterForwarder(self.router, settings.guard))
            ),
            self.sockets,
            BrowserGuard(settings.guard),
            bounds=Bounds(
                connections=per_worker,
                body=settings.max_body_bytes,
                room=room,
            ),
            timeouts=ClientTimeouts(
                settings.head_timeout_seconds,
                settings.body_timeout_seconds,
                settings.keep_alive_seconds,
            ),
        )
        self._watch_ourselves()
        self._drain_s = settings.drain_seconds
        self._beat_s = settings.heartbeat_seconds

    def _watch_ourselves(self) -> None:
        for name, text, value in (
            ("open_connections", "Clients' connections.", lambda: self.server.open),
            (
                "body_bytes",
                "Of large request bodies, held.",
                lambda: self.server.room.held,
            ),
            ("requests_in_flight", "Of clients.", lambda: len(self.in_flight.active)),
            ("upstream_connections", "To upstreams.", lambda: self.upstream.open),
            ("tasks", "Of the event loop.", lambda: len(asyncio.all_tasks())),
            (
                "journal_corrupt_records",
                "Of dead gateways, skipped when their journals were taken over.",
                lambda: self.journal.corrupt,
            ),
        ):
            metrics.watch(f"proxy_{name}", text, value)

    async def run(self, listening: socket.socket) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is under way."""
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        self.capturer.start()
        self.delivery.announce(int(time.time() * 1000))
        await self.redis.open()
        try:
            await self.heartbeat.beat()
        except (RedisAway, NoCatalogue):
            log.warning("no catalogue yet", action="catalogue_awaited")
        loops = [
            asyncio.create_task(loop)
            for loop in (self.heartbeat.run(self._beat_s), self._recovery.run())
        ]
        await self.server.listen(listening, self.data_plane, self.upstream)
        log.info("gateway started", action="gateway_started", gateway=self.id)
        asked = asyncio.create_task(told.wait())
        await asyncio.wait([asked, *loops], return_when=asyncio.FIRST_COMPLETED)
        for loop in filter(asyncio.Task.done, loops):
            # A gateway that does not beat would be taken for dead while it serves.
            log.error("a loop ended", action="loop_died", cause=repr(loop.exception()))
        await self._end(loops)
        asked.cancel()

    async def _end(self, loops: "list[asyncio.Task[None]]") -> None:
        await self.server.refuse_new()
        await asyncio.gather(
            self.sockets.drain(self._drain_s / 2), self.server.drain(self._drain_s)
        )
        if self.in_flight.active:
            self.data_plane.interrupt()
            await self.server.drain(LAST_WORDS_S)
        await self.server.stop()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        self.delivery.announce_end(int(time.time() * 1000))
        await asyncio.gather(self._hand_over(), self.capturer.close(self._drain_s))
        self.journal.close()
        self.upstream.close()
        await self.router.aclose()
        await self.redis.close()

    async def _hand_over(self) -> None:
        """The last releases are on their way, and Redis may come back while we
        wait. What is not stored by the end a successor finds in the journal."""
        loop, keeper = asyncio.get_running_loop(), self.delivery
        ends = loop.time() + self._drain_s
        while (self.redis.busy or len(keeper)) and loop.time() < ends:
            await keeper.flush()
            await asyncio.sleep(0.02)
        ends = min(ends, loop.time() + STORED_WITHIN_S)
        with contextlib.suppress(RedisAway, NoCatalogue):
            while not self.journal.clear and loop.time() < ends:
                await self.heartbeat.beat()
                await asyncio.sleep(0.05)
        if not self.journal.clear:
            log.info("left to a successor", action="journal_left", held=keeper.held)


def _control(
    readiness: Probes, door: RouterForwarder
) -> "falcon.asgi.App[Request, Response]":
    """What is served beside the data plane."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.add_error_handler(Problem, _say_problem)
    for probe in ("healthz", "readyz", "metrics"):
        app.add_route(f"/{probe}", readiness, suffix=probe)
    app.add_sink(door.forward, "/")
    return app


async def _say_problem(
    _: Request, resp: Response, problem: Problem, _params: object, **__: object
) -> None:
    resp.status = problem.status
    resp.content_type = "application/json"
    resp.data = problem.body()
    for name, value in problem.headers:
        resp.set_header(name.decode(), value.decode())
