"""Composition root of the gateway. Granian calls `create_app`; the data plane
is served before Falcon routes anything, with the raw ASGI messages: byte-exact
headers, a client's leaving and refused upgrades cannot be had above them."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import sys
import time
from typing import Any

import falcon.asgi
import httpx
import structlog
from falcon.asgi import Request, Response

from libs.common import logs
from libs.common.errors import NoCatalogue, RedisAway, SettingError
from libs.common.redis_client import SharedConnection, connect
from libs.common.routing import RoutingFunctions, Terms
from libs.common.service_settings import GatewaySettings
from services.gateway import problems
from services.gateway.choosing import Chooser
from services.gateway.control import Readiness, RouterDoor
from services.gateway.directory import Directory
from services.gateway.fallback import Fallback
from services.gateway.heartbeat import Heart
from services.gateway.incoming import Receive, Scope, Send
from services.gateway.journal import Journal
from services.gateway.outcomes import Ledger
from services.gateway.owners import OwnerSearch
from services.gateway.predecessors import Successor
from services.gateway.problems import Problem
from services.gateway.proxying import DataPlane, Limits
from services.gateway.safekeeping import Safekeeper
from services.gateway.socket_requests import Books
from services.gateway.sockets import SocketPlane
from services.gateway.upstream import UpstreamClient

log = structlog.get_logger()

STORED_WITHIN_S = 0.5  # ingest's time to store what came last


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
        self.directory = Directory(self.routing, os.environ)
        journals = settings.data_dir / "journal"
        self.journal = Journal(
            journals, self.id, int(time.time() * 1000), settings.journal_max_bytes
        )
        self.safekeeper = Safekeeper(
            self.journal, self.redis, settings.telemetry_stream
        )
        self._successor = Successor(journals, self.journal)
        self.upstream = UpstreamClient(settings.connect_timeout_seconds)
        self.router = httpx.AsyncClient(base_url=settings.router_url, timeout=30.0)
        fallback = Fallback(self.directory, terms.cooldown_ms)
        ledger = Ledger(self.routing, self.journal, fallback.judged)
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
        self.data_plane = DataPlane(
            self.id, limits, chooser, fallback, self.upstream, ledger
        )
        books = Books(
            self.id,
            self.routing,
            ledger,
            fallback,
            self.data_plane.active,
            settings.request_timeout_seconds,
        )
        self.sockets = SocketPlane(books, limits, chooser)
        self.heart = Heart(
            self.id,
            self.redis,
            self.routing,
            self.directory,
            self.safekeeper,
            self.data_plane,
        )
        self.readiness = Readiness(
            self.directory, self.safekeeper, lambda: self.redis.up, self.router
        )
        self._drain_s = settings.drain_seconds
        self._beat_s = settings.heartbeat_seconds
        self._loops: list[asyncio.Task[None]] = []
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and begin to beat; Redis may come later."""
        await self.redis.open()
        try:
            await self.heart.beat()
        except (RedisAway, NoCatalogue):
            log.warning("no catalogue yet", action="catalogue_awaited")
        for loop in (self.heart.run(self._beat_s), self._successor.run()):
            self._loops.append(asyncio.create_task(loop))
            self._loops[-1].add_done_callback(_die_with)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)
        log.info("gateway started", action="gateway_started", gateway=self.id)

    def _terminate(self) -> None:
        """Granian drains requests but cuts sockets: they are closed before it is
        told, by the other signal it listens to (hotpath.md, trap 6)."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        try:
            await self.sockets.drain(self._drain_s / 2)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    async def stop(self) -> None:
        """Hand over what is left, and go. Granian has drained the requests."""
        for loop in self._loops:
            loop.remove_done_callback(_die_with)
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self.safekeeper.sign_off(int(time.time() * 1000))
        await self._hand_over()
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


def _die_with(task: "asyncio.Task[None]") -> None:
    """A gateway that does not beat would be taken for dead while it serves."""
    log.error("a loop ended", action="loop_died", cause=repr(task.exception()))
    os.kill(os.getpid(), signal.SIGTERM)


class GatewayApp:
    """`/v1` to the data plane; everything else, lifespan included, to Falcon."""

    def __init__(self, control: falcon.asgi.App[Any, Any]) -> None:
        self.control = control
        self.gateway: Gateway | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            if self.gateway is None:
                await _refuse_upgrade(send)
            else:
                await self.gateway.sockets.serve(scope, receive, send)
        elif self.gateway is not None and scope.get("path", "").startswith("/v1/"):
            await self.gateway.data_plane.serve(scope, receive, send)
        else:
            await self.control(scope, receive, send)


async def _refuse_upgrade(send: Send) -> None:
    """Before there is a gateway."""
    problem = problems.not_ready()
    headers = [(b"content-type", b"application/json"), *problem.headers]
    start = {"status": problem.status, "headers": headers}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": problem.body()})


class Lifespan:
    """Builds the gateway in its worker: pools must not be shared by forks."""

    def __init__(self, app: GatewayApp, settings: GatewaySettings) -> None:
        self._app = app
        self._settings = settings

    async def process_startup(self, _scope: Any, _event: Any) -> None:
        gateway = Gateway(self._settings)
        await gateway.start()
        control = self._app.control
        control.add_route("/healthz", gateway.readiness, suffix="healthz")
        control.add_route("/readyz", gateway.readiness, suffix="readyz")
        control.add_route("/metrics", gateway.readiness, suffix="metrics")
        control.add_sink(RouterDoor(gateway.router).forward, "/")
        self._app.gateway = gateway

    async def process_shutdown(self, _scope: Any, _event: Any) -> None:
        if self._app.gateway is not None:
            await self._app.gateway.stop()


async def _say_problem(
    _: Request, resp: Response, problem: Problem, _params: object, **__: object
) -> None:
    resp.status = problem.status
    resp.content_type = "application/json"
    resp.data = problem.body()
    for name, value in problem.headers:
        resp.set_header(name.decode(), value.decode())


def create_app() -> GatewayApp:
    """The ASGI application, from the environment's settings."""
    try:
        settings = GatewaySettings.read(os.environ)
        settings.refuse_open_admin()
    except SettingError as error:
        sys.stderr.write(f"responses-proxy: {error}\n")
        raise SystemExit(2) from None
    logs.configure("gateway", settings.log_level)
    control: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app = GatewayApp(control)
    control.add_error_handler(Problem, _say_problem)
    control.add_middleware(Lifespan(app, settings))
    return app
