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
from services.gateway.admin.forwarding import Readiness, RouterDoor
from services.gateway.auth.authenticator import Admission
from services.gateway.auth.browser_guard import Doorkeeper
from services.gateway.auth.limits import Gate
from services.gateway.capture.worker import make_capturer
from services.gateway.content.body_reader import Reader
from services.gateway.errors import Problem
from services.gateway.heartbeat import Heart
from services.gateway.ledger.journal.delivery import Safekeeper
from services.gateway.ledger.journal.journal import Journal
from services.gateway.ledger.journal.recovery import Successor
from services.gateway.ledger.ledger import Ledger
from services.gateway.proxy.handler import DataPlane
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.services import Limits
from services.gateway.routing.catalogue import Directory
from services.gateway.routing.offline import Fallback
from services.gateway.routing.owner_lookup import OwnerSearch
from services.gateway.routing.selector import Chooser
from services.gateway.server.body_memory import Room
from services.gateway.server.connection import Times
from services.gateway.server.server import Bounds, Server
from services.gateway.upstream.client import Patience, UpstreamClient
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
        self.directory = Directory(
            self.routing, Credentials(os.environ, Sealer(settings.fernet_keys), rules)
        )
        journals = settings.data_dir / "journal"
        self.journal = Journal(
            journals, self.id, int(time.time() * 1000), settings.journal_max_bytes
        )
        self.safekeeper = Safekeeper(
            self.journal, self.redis, settings.telemetry_stream
        )
        self._successor = Successor(journals, self.journal, self.routing)
        dialer = Dialer(
            Egress.read(os.environ),
            resuming_context(settings.upstream_ca_file),
            destinations=rules.destinations,
        )
        self.upstream = UpstreamClient(
            settings.connect_timeout_seconds,
            Patience(
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
        fallback = Fallback(self.directory, terms.cooldown_ms)
        self.capturer = make_capturer(settings)
        ledger = Ledger(self.routing, self.journal, fallback.judged, self.capturer)
        local = fallback.local
        search = OwnerSearch(local.sessions, local.ids, self.router)
        chooser = Chooser(
            self.routing,
            self.directory,
            fallback,
            search,
            ledger,
            settings.heartbeat_seconds,
        )
        admission = Admission(KeyTable(self.redis), required=settings.require_keys)
        gate = Gate(admission, KeyLimits(self.redis), strict=settings.isolates_strictly)
        reader = Reader()
        self.in_flight = InFlight(self.id, ledger, fallback, gate)
        self.data_plane = DataPlane(
            limits, gate, chooser, self.in_flight, self.upstream, reader
        )
        context = TurnContext(
            gate,
            SocketLeases(self.routing, chooser, ledger),
            self.in_flight,
            settings.request_timeout_seconds,
            chooser,
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
        self.heart = Heart(
            self.id,
            self.redis,
            self.routing,
            self.directory,
            self.safekeeper,
            self.in_flight,
            admission,
        )
        self.readiness = Readiness(
            self.directory,
            self.safekeeper,
            lambda: self.redis.up,
            self.router,
            admission,
        )
        per_worker = -(-settings.max_connections // settings.gateway_workers)
        self.server = Server(
            self.data_plane,
            ControlPlane(
                _control(self.readiness, RouterDoor(self.router, settings.guard))
            ),
            self.sockets,
            Doorkeeper(settings.guard),
            bounds=Bounds(
                connections=per_worker,
                body=settings.max_body_bytes,
                room=room,
            ),
            times=Times(
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
        self.safekeeper.sign_on(int(time.time() * 1000))
        await self.redis.open()
        try:
            await self.heart.beat()
        except (RedisAway, NoCatalogue):
            log.warning("no catalogue yet", action="catalogue_awaited")
        loops = [
            asyncio.create_task(loop)
            for loop in (self.heart.run(self._beat_s), self._successor.run())
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
        if self.data_plane.interrupt():
            await self.server.drain(LAST_WORDS_S)
        await self.server.stop()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        self.safekeeper.sign_off(int(time.time() * 1000))
        await asyncio.gather(self._hand_over(), self.capturer.close(self._drain_s))
        self.journal.close()
        self.upstream.close()
        await self.router.aclose()
        await self.redis.close()

    async def _hand_over(self) -> None:
        """The last releases are on their way, and Redis may come back while we
        wait. What is not stored by the end a successor finds in the journal."""
        loop, keeper = asyncio.get_running_loop(), self.safekeeper
        ends = loop.time() + self._drain_s
        while (self.redis.busy or len(keeper)) and loop.time() < ends:
            await keeper.flush()
            await asyncio.sleep(0.02)
        ends = min(ends, loop.time() + STORED_WITHIN_S)
        with contextlib.suppress(RedisAway, NoCatalogue):
            while not self.journal.clear and loop.time() < ends:
                await self.heart.beat()
                await asyncio.sleep(0.05)
        if not self.journal.clear:
            log.info("left to a successor", action="journal_left", held=keeper.held)


def _control(
    readiness: Readiness, door: RouterDoor
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
