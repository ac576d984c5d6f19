"""Composition root of the router. Granian calls `create_app`; what it holds is
built when its worker starts."""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import falcon.asgi
import prometheus_client
import structlog
from falcon.asgi import Request, Response

from libs.common import logs
from libs.common.errors import ProxyError, SettingError
from libs.common.leader import LeaderLease
from libs.common.orders import Orders
from libs.common.redis_client import connect
from libs.common.resources import resources_from_environment
from libs.common.routing import ClientCaller, RoutingFunctions, Terms
from libs.common.service_settings import RouterSettings
from libs.common.store.opening import open_store
from libs.common.streams import TelemetryStream
from services.router.admin.access import AdminToken
from services.router.admin.checks import HealthCheck
from services.router.admin.history import History, OneRequest
from services.router.admin.state import Events, Overview, State
from services.router.catalogue import LIBRARY, Publisher, build_catalogue
from services.router.openapi import Docs, OpenApi
from services.router.problems import say
from services.router.reaper import Reaper

log = structlog.get_logger()

DASHBOARD = Path(__file__).with_name("dashboard")
LEASE_MS = 4_000
# The page loads nothing from elsewhere and may be framed by nobody.
CSP = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"

App = falcon.asgi.App[Any, Any]


class Router:
    """Everything the process holds."""

    def __init__(self, settings: RouterSettings) -> None:
        self._redis = connect(settings.redis_url)
        terms = Terms(
            session_ttl_ms=int(settings.session_ttl_seconds * 1000),
            id_ttl_ms=int(settings.affinity_ttl_seconds * 1000),
            cooldown_ms=int(settings.cooldown_seconds * 1000),
        )
        self.routing = RoutingFunctions(
            ClientCaller(self._redis), settings.telemetry_stream, terms, LIBRARY
        )
        self.store = open_store(settings.url)
        self.orders = Orders(self._redis)
        backlog = TelemetryStream(
            self._redis, settings.telemetry_stream, settings.telemetry_group
        )
        self.overview = Overview(
            self.routing, backlog, self.store, open_admin=settings.admin_token is None
        )
        resources = resources_from_environment(os.environ, settings.upstream_base_url)
        self.publisher = Publisher(self.routing, build_catalogue(resources))
        self._lease = LeaderLease(self._redis, "router", _holder(), LEASE_MS)
        silent_ms = int(settings.gateway_silence_seconds * 1000)
        self._reaper = Reaper(self.routing, self._lease, silent_ms)
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._loops = [_kept(self.publisher.run()), _kept(self._reaper.run())]
        log.info("router started", action="router_started")

    async def stop(self) -> None:
        for loop in self._loops:
            loop.remove_done_callback(_die_with)
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        try:
            await self._lease.release()
        except ProxyError:
            log.info("lease left to expire", action="lease_left")
        await self.store.close()
        await self._redis.aclose()


def _kept(loop: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    task = asyncio.create_task(loop)
    task.add_done_callback(_die_with)
    return task


def _die_with(task: "asyncio.Task[None]") -> None:
    """A loop that ends by itself ends the process; supervisor starts it afresh."""
    log.error("a loop ended", action="loop_ended", cause=repr(task.exception()))
    os.kill(os.getpid(), signal.SIGTERM)


def _holder() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Probes:
    """`/healthz`, `/readyz`, `/metrics`."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def on_get_healthz(self, _: Request, resp: Response) -> None:
        resp.media = {"status": "alive"}

    async def on_get_readyz(self, _: Request, resp: Response) -> None:
        """Ready while gateways can route by what this router published."""
        degraded = []
        try:
            await self._router.store.ping()
        except ProxyError:
            degraded.append("database: unreachable")
        ready = self._router.publisher.published
        if not ready:
            degraded.append("redis: catalogue not published")
        resp.status = falcon.HTTP_200 if ready else falcon.HTTP_503
        resp.media = {"ready": ready, "degraded": degraded}

    async def on_get_metrics(self, _: Request, resp: Response) -> None:
        resp.content_type = prometheus_client.CONTENT_TYPE_LATEST
        resp.data = prometheus_client.generate_latest()


class Page:
    """One file of the dashboard."""

    def __init__(self, name: str, content_type: str) -> None:
        self._body = (DASHBOARD / name).read_bytes()
        self._content_type = content_type

    async def on_get(self, _: Request, resp: Response) -> None:
        resp.content_type = self._content_type
        resp.data = self._body
        resp.set_header("content-security-policy", CSP)
        resp.set_header("x-content-type-options", "nosniff")
        resp.cache_control = ["no-cache"]


class Lifespan:
    """Builds the router in its worker, with its event loop."""

    def __init__(self, app: App, settings: RouterSettings) -> None:
        self._app = app
        self._settings = settings
        self._router: Router | None = None

    async def process_startup(self, _scope: Any, _event: Any) -> None:
        self._router = router = Router(self._settings)
        router.start()
        _add_routes(self._app, router)

    async def process_shutdown(self, _scope: Any, _event: Any) -> None:
        if self._router is not None:
            await self._router.stop()


def _add_routes(app: App, router: Router) -> None:
    probes = Probes(router)
    for suffix in ("healthz", "readyz", "metrics"):
        app.add_route(f"/{suffix}", probes, suffix=suffix)
    app.add_route("/admin/state", State(router.overview))
    app.add_route("/admin/events", Events(router.overview))
    app.add_route("/admin/health/check", HealthCheck(router.orders))
    app.add_route("/admin/sessions", History(router.store, "sessions"))
    app.add_route("/admin/requests", History(router.store, "requests"))
    app.add_route("/admin/decisions", History(router.store, "decisions"))
    app.add_route("/admin/requests/{request_id}", OneRequest(router.store))
    app.add_route("/", Page("index.html", "text/html; charset=utf-8"))
    app.add_route("/dashboard/app.js", Page("app.js", "text/javascript; charset=utf-8"))
    app.add_route("/dashboard/style.css", Page("style.css", "text/css; charset=utf-8"))
    app.add_route("/openapi.json", OpenApi())
    app.add_route("/docs", Docs(CSP))


def create_app() -> App:
    """The ASGI application, from the environment's settings."""
    try:
        settings = RouterSettings.read(os.environ)
        settings.refuse_open_admin()
        resources_from_environment(os.environ, settings.upstream_base_url)
    except SettingError as error:
        sys.stderr.write(f"responses-proxy: {error}\n")
        raise SystemExit(2) from None
    logs.configure("router", settings.log_level)
    if settings.admin_token is None:
        log.warning(
            "anyone who reaches this port may use /admin; set PROXY_ADMIN_TOKEN",
            action="admin_open",
        )
    app: App = falcon.asgi.App()
    for kind in (Exception, ProxyError, falcon.HTTPError):
        app.add_error_handler(kind, say)
    app.add_middleware(AdminToken(settings.admin_token))
    app.add_middleware(Lifespan(app, settings))
    return app
