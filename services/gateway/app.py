"""Composition root of a gateway worker: builds its parts, runs it and shuts it down."""

import asyncio
import contextlib
import os
import signal
import socket
import time

import httpx
import structlog

from libs.common.browser_guard import CHECKED
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.providers.credentials import Credentials
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from libs.common.redis.hot_connection import hot_connection
from libs.common.redis.key_table import KeyTable
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.runtime.lifecycle import process_name
from libs.common.runtime.tls import resuming_context
from libs.common.settings.http_proxies import Egress
from libs.common.settings.services import GatewaySettings
from services.gateway.admin.asgi import ControlPlane
from services.gateway.admin.conditions import GatewayConditions
from services.gateway.admin.falcon_app import control_app
from services.gateway.admin.forwarding import RouterForwarder
from services.gateway.admin.probes import Probes
from services.gateway.auth.access_control import AccessControl
from services.gateway.auth.authenticator import Authenticator
from services.gateway.capture.worker import make_capturer
from services.gateway.content.body_reader import Reader
from services.gateway.gauges import register_gauges
from services.gateway.heartbeat import Heartbeat
from services.gateway.ledger.journal.delivery import JournalDelivery
from services.gateway.ledger.journal.journal import Journal
from services.gateway.ledger.journal.recovery import JournalRecovery
from services.gateway.ledger.ledger import Ledger
from services.gateway.proxy.handler import DataPlane
from services.gateway.proxy.services import Limits
from services.gateway.routing.catalogue import GatewayCatalogue
from services.gateway.routing.limits import LimitNotes
from services.gateway.routing.offline import OfflineRouting
from services.gateway.routing.owner_lookup import OwnerLookup
from services.gateway.routing.selector import Selector
from services.gateway.routing.waiting_room import WaitingRoom
from services.gateway.scrape.scrape import Scrape
from services.gateway.scrape.slots import Slots
from services.gateway.server.body_memory import Room
from services.gateway.server.browser_guard import BrowserGuard
from services.gateway.server.connection import ClientTimeouts
from services.gateway.server.keep_alive import ClientKeepAlive
from services.gateway.server.server import Bounds, Server
from services.gateway.tracing.choice import in_flight_class
from services.gateway.upstream.client import Timeouts, UpstreamClient
from services.gateway.upstream.connector import Dialer
from services.gateway.websocket.handler import SocketPlane
from services.gateway.websocket.leases import SocketLeases
from services.gateway.websocket.turn_types import TurnContext
from services.gateway.websocket.upstream import Opener

log = structlog.get_logger()

STORED_WITHIN_S = 0.5  # how long to wait for ingest to store the last events
LAST_WORDS_S = 0.2  # how long clients may take to read answers that we interrupted


class Gateway:
    """One gateway worker: its parts, and their start and shutdown."""

    def __init__(self, settings: GatewaySettings, slots: Slots | None = None) -> None:
        """`slots`: shared with the other workers of this gateway."""
        self._settings = settings
        self.scrape = Scrape(slots)
        self.id = process_name()
        self._rules = ProviderRules.read(os.environ)
        self._keys = settings.redis_keys
        self.redis = hot_connection(settings.redis_url, self._keys)
        self.routing = RoutingFunctions(
            self.redis, settings.telemetry_stream, Terms.of(settings), keys=self._keys
        )
        self.router = _router_client(settings)
        self._build_access()
        self._build_ledger()
        self._build_routing()
        self._build_upstreams()
        self._build_planes()
        self._build_maintenance()
        self._build_server()
        register_gauges(
            self.server, self.in_flight, self.upstream, self.delivery, self.redis
        )

    def _build_access(self) -> None:
        """Who may send requests."""
        settings = self._settings
        self.authenticator = Authenticator(
            KeyTable(self.redis, self._keys), required=settings.require_keys
        )
        self.access = AccessControl(
            self.authenticator,
            self.routing,
            strict=settings.isolates_strictly,
            balancers=settings.trusted_networks,
        )

    def _build_ledger(self) -> None:
        """What is recorded of requests, and how it reaches SQL."""
        settings = self._settings
        journals = settings.data_dir / "journal"
        self.journal = Journal(
            journals, self.id, int(time.time() * 1000), settings.journal_max_bytes
        )
        self.delivery = JournalDelivery(
            self.journal, self.redis, settings.telemetry_stream, self._keys
        )
        self._recovery = JournalRecovery(journals, self.journal, self.routing)
        self.capturer = make_capturer(settings)

    def _build_routing(self) -> None:
        """Which resource an attempt goes to."""
        settings = self._settings
        sealer = Sealer(settings.fernet_keys)
        self.catalogue = GatewayCatalogue(
            self.routing, Credentials(os.environ, sealer, self._rules)
        )
        self.offline = OfflineRouting(
            self.catalogue,
            Terms.of(settings).cooldown_ms,
            limit_aware=settings.limit_aware,
            quotas=self.access.quotas,
        )
        parts = self.routing, self.journal, self.offline.judged, self.capturer
        self.ledger = Ledger(*parts, self.redis.when_sent)
        local = self.offline.local
        self.selector = Selector(
            self.routing,
            self.catalogue,
            self.offline,
            OwnerLookup(local.sessions, local.ids, self.router),
            self.ledger,
            settings.heartbeat_seconds,
        )
        self.waiting_room = WaitingRoom(
            self.routing,
            self.selector,
            self.id,
            settings.queue_ms / 1000,
            settings.request_timeout_seconds,
        )

    def _build_upstreams(self) -> None:
        """Connections to upstreams."""
        settings = self._settings
        self._dialer = Dialer(
            Egress.read(os.environ),
            resuming_context(settings.upstream_ca_file),
            destinations=self._rules.destinations,
        )
        self.upstream = UpstreamClient(
            settings.connect_timeout_seconds,
            Timeouts(
                settings.first_byte_timeout_seconds, settings.idle_timeout_seconds
            ),
            self._dialer,
            settings.upstream_connections_per_worker,
        )

    def _build_planes(self) -> None:
        """What serves /v1: HTTP requests and WebSockets."""
        settings = self._settings
        limits = _limits(settings)
        reader = Reader()
        notes = LimitNotes() if settings.limit_aware else None
        self.in_flight = in_flight_class(settings, self.id)(
            self.id,
            self.ledger,
            self.offline,
            notes,
            self.waiting_room,
            access_log=settings.access_log,
        )
        self.data_plane = DataPlane(
            limits, self.access, self.selector, self.in_flight, self.upstream, reader
        )
        share = settings.body_memory_bytes // settings.gateway_workers
        self.room = Room(max(share, settings.max_body_bytes))
        context = TurnContext(
            self.access,
            SocketLeases(self.routing, self.selector),
            self.in_flight,
            settings.request_timeout_seconds,
            self.selector,
            reader,
        )
        opener = Opener(self._dialer, settings.connect_timeout_seconds)
        self.sockets = SocketPlane(
            context, limits, self.data_plane.attempts, opener, self.room
        )

    def _build_maintenance(self) -> None:
        """What runs beside requests: heartbeats, probes and keepalives."""
        longest_s = self._settings.client_keepalive_seconds
        self._keep_alive = ClientKeepAlive(longest_s, self.data_plane, self.sockets)
        self.heartbeat = Heartbeat(
            self.id,
            self.redis,
            self.routing,
            self.catalogue,
            self.delivery,
            self.in_flight,
            self.authenticator,
            self._keys,
        )
        self.conditions = GatewayConditions(
            self.catalogue,
            self.delivery,
            lambda: self.redis.up,
            self.router,
            self.authenticator,
        )
        self.heartbeat.impaired = lambda: self.conditions.parts
        self.probes = Probes(
            self.catalogue,
            self.delivery,
            self.authenticator,
            self.conditions,
            self.scrape,
        )

    def _build_server(self) -> None:
        """The listener, which passes requests to the planes."""
        settings = self._settings
        control = control_app(self.probes, RouterForwarder(self.router, settings.guard))
        self.server = Server(
            self.data_plane,
            ControlPlane(control, settings.trusted_networks),
            self.sockets,
            BrowserGuard(settings.guard),
            bounds=Bounds(
                connections=-(-settings.max_connections // settings.gateway_workers),
                body=settings.max_body_bytes,
                room=self.room,
            ),
            timeouts=ClientTimeouts(
                settings.head_timeout_seconds,
                settings.body_timeout_seconds,
                settings.keep_alive_seconds,
            ),
        )

    async def run(self, listening: socket.socket) -> None:
        """Serves until SIGTERM or SIGINT, then ends the active requests."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        self.capturer.start()
        self.delivery.announce(int(time.time() * 1000))
        await self.redis.open()
        try:
            await self.heartbeat.beat()
        except (RedisAway, NoCatalogue):
            log.warning(
                "gateway has no catalogue yet and waits for it",
                action="catalogue_awaited",
            )
        beats = self.heartbeat.run(self._settings.heartbeat_seconds)
        running = beats, self._recovery.run(), self.conditions.run(self.scrape)
        loops = [asyncio.create_task(loop) for loop in running]
        await self.server.listen(
            listening, self.data_plane, self.upstream, self._keep_alive
        )
        log.info("gateway started", action="gateway_started", gateway=self.id)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, *loops], return_when=asyncio.FIRST_COMPLETED)
        for loop in filter(asyncio.Task.done, loops):
            # Without heartbeats the reaper would end this gateway's leases.
            log.error(
                "background task ended, gateway shuts down",
                action="loop_died",
                cause=repr(loop.exception()),
            )
        await self._shut_down(loops)
        stopped.cancel()

    async def _shut_down(self, loops: "list[asyncio.Task[None]]") -> None:
        drain_s = self._settings.drain_seconds
        await self.server.refuse_new()
        await asyncio.gather(
            self.sockets.drain(drain_s / 2), self.server.drain(drain_s)
        )
        if self.data_plane.interrupt():
            await self.server.drain(LAST_WORDS_S)
        await self.server.stop()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        self.delivery.announce_end(int(time.time() * 1000))
        await asyncio.gather(
            self._flush_journal(),
            self.capturer.close(drain_s),
            self.in_flight.close(),
        )
        self.journal.close()
        self.upstream.close()
        await self.router.aclose()
        await self.redis.close()

    async def _flush_journal(self) -> None:
        """Waits until the last events are in SQL, within the drain time: Redis may come
        back. Another gateway recovers the rest from the journal."""
        loop, delivery = asyncio.get_running_loop(), self.delivery
        ends = loop.time() + self._settings.drain_seconds
        while (self.redis.busy or len(delivery)) and loop.time() < ends:
            await delivery.flush()
            await asyncio.sleep(0.02)
        ends = min(ends, loop.time() + STORED_WITHIN_S)
        with contextlib.suppress(RedisAway, NoCatalogue):
            while not self.journal.clear and loop.time() < ends:
                await self.heartbeat.beat()
                await asyncio.sleep(0.05)
        if not self.journal.clear:
            log.info(
                "journal is left for another gateway to recover",
                action="journal_left",
                held=delivery.held,
            )


def _limits(settings: GatewaySettings) -> Limits:
    return Limits(
        body_bytes=settings.max_body_bytes,
        attempts=settings.max_attempts,
        request_s=settings.request_timeout_seconds,
        pause_ms=Terms.of(settings).cooldown_ms,
        replays=settings.replay_without_reasoning,
    )


def _router_client(settings: GatewaySettings) -> httpx.AsyncClient:
    """Ignores HTTP proxies of the environment, which are for upstreams only."""
    return httpx.AsyncClient(
        base_url=settings.router_url,
        headers={CHECKED: "gateway"},
        timeout=30.0,
        trust_env=False,
        # Loading certificates takes 5 % of the start.
        verify=settings.router_url.startswith("https:"),
    )
