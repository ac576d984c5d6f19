"""Composition root of the router. Granian calls `create_app`; what it holds is
built when its worker starts."""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Coroutine
from typing import Any

import falcon.asgi
import structlog

from libs.common.errors import ProxyError, SettingError
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from libs.common.proxy_keys import KeyTable
from libs.common.redis.check_queue import Orders
from libs.common.redis.client import ClientCaller
from libs.common.redis.leader import LeaderLease
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.runtime import logs
from libs.common.runtime.lifecycle import end
from libs.common.settings.http_proxies import Egress
from libs.common.settings.resources import resources_from_environment
from libs.common.settings.services import HealthSettings, RouterSettings
from libs.common.store.admin_token import AdminTokenRow
from libs.common.store.factory import open_store
from libs.common.store.interface import Store
from libs.common.store.providers import RegistryRows
from libs.common.store.proxy_keys import ProxyKeyRows
from services.router.admin.access import AdminToken, Browsers
from services.router.admin.destinations import DestinationCheck
from services.router.admin.explain import Explain
from services.router.admin.health_checks import Examiner, HealthCheck
from services.router.admin.history import History, OneRequest
from services.router.admin.keys import OneProxyKey, ProxyKeys
from services.router.admin.ledger import Auditor, LedgerView
from services.router.admin.models import Models, OneModel
from services.router.admin.provider_tests import ModelTest, ProviderTest
from services.router.admin.providers import OneProvider, Providers, Surroundings
from services.router.admin.state import Events, Overview, State
from services.router.admin.tokens import FixedToken, KeptToken
from services.router.catalogue import Publisher, build_catalogue
from services.router.dashboard_files import CSP, FILES, Page
from services.router.errors import say
from services.router.function_library import LIBRARY
from services.router.key_table import KeyPublisher
from services.router.openapi import Docs, OpenApi
from services.router.owners import Owners
from services.router.probes import Probes
from services.router.reaper import Reaper
from services.router.registry import Changes, RegistryReader
from services.router.shutdown import stopping_at_signal

log = structlog.get_logger()

LEASE_MS = 4_000
CHECK_MARGIN_S = 5.0  # a check's way there and back, after another one

App = falcon.asgi.App[Any, Any]


class Router:
    """Everything the process holds."""

    def __init__(self, settings: RouterSettings) -> None:
        self._redis = connect(settings.redis_url)
        caller = ClientCaller(self._redis)
        terms = Terms(
            session_ttl_ms=int(settings.session_ttl_seconds * 1000),
            id_ttl_ms=int(settings.affinity_ttl_seconds * 1000),
            cooldown_ms=int(settings.cooldown_seconds * 1000),
        )
        self.routing = RoutingFunctions(
            caller, settings.telemetry_stream, terms, LIBRARY
        )
        self.store = open_store(settings.url)
        self.proxy_keys = ProxyKeyRows(self.store.fetch)
        self.key_publisher = KeyPublisher(self.proxy_keys, KeyTable(caller))
        self.orders = Orders(self._redis)
        check_s = HealthSettings.read(os.environ).timeout_seconds
        self.patience_s = check_s + CHECK_MARGIN_S
        self.stopping = stopping_at_signal()
        backlog = TelemetryStream(
            self._redis, settings.telemetry_stream, settings.telemetry_group
        )
        resources = resources_from_environment(os.environ, settings.upstream_base_url)
        self.around = Surroundings(
            Sealer(settings.fernet_keys),
            os.environ,
            resources,
            settings.upstream_base_url,
            DestinationCheck(ProviderRules.read(os.environ), Egress.read(os.environ)),
        )
        self.registry_rows = RegistryRows(self.store.fetch)
        self.registry = RegistryReader(
            self.registry_rows, Changes(caller), resources, self.around.sealer
        )
        self._lease = LeaderLease(self._redis, "router", _holder(), LEASE_MS)
        self.publisher = Publisher(
            self.routing, build_catalogue(resources), self._lease, self.registry
        )
        self.registry.on_change = self.publisher.renew
        self.auditor = Auditor(self.routing, backlog, self.store)
        self.overview = Overview(
            self.routing,
            backlog,
            self.store,
            self.auditor,
            self.publisher,
            open_admin=settings.open_admin,
        )
        silent_ms = int(settings.gateway_silence_seconds * 1000)
        self._reaper = Reaper(self.routing, self._lease, silent_ms)
        self.token = _token(settings, self.store)
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loops = (
            self.publisher.run(),
            self._reaper.run(),
            self.key_publisher.run(),
            self.registry.run(),
        )
        self._loops = [_kept(loop) for loop in loops]
        if isinstance(self.token, KeptToken):
            self._loops.append(asyncio.create_task(self.token.make_first()))
        log.info("router started", action="router_started")

    async def stop(self) -> None:
        for loop in self._loops:
            loop.remove_done_callback(_die_with)
        await end(self._loops)
        try:
            await self._lease.release()
        except ProxyError:
            log.info("lease left to expire", action="lease_left")
        await self.store.close()
        await self._redis.aclose()


def _token(settings: RouterSettings, store: Store) -> FixedToken | KeptToken | None:
    """None: /admin is open."""
    if settings.admin_token is not None:
        return FixedToken(settings.admin_token)
    if settings.open_admin:
        return None
    origin = f"http://127.0.0.1:{settings.port}"
    return KeptToken(AdminTokenRow(store.fetch), settings.data_dir, origin)


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


class Lifespan:
    """Builds the router in its worker, with its event loop."""

    def __init__(self, app: App, settings: RouterSettings) -> None:
        self._app = app
        self._settings = settings
        self._router: Router | None = None

    async def process_startup(self, _scope: Any, _event: Any) -> None:
        self._router = router = Router(self._settings)
        router.start()
        self._app.add_middleware(AdminToken(router.token))
        _add_routes(self._app, router)

    async def process_shutdown(self, _scope: Any, _event: Any) -> None:
        if self._router is not None:
            await self._router.stop()


def _add_routes(app: App, router: Router) -> None:
    probes = Probes(
        lambda: router.publisher.published, router.store.ping, router.overview.shared
    )
    for suffix in ("healthz", "readyz", "metrics"):
        app.add_route(f"/{suffix}", probes, suffix=suffix)
    app.add_route("/admin/state", State(router.overview))
    app.add_route("/admin/ledger", LedgerView(router.auditor))
    app.add_route("/admin/events", Events(router.overview, router.stopping))
    examiner = Examiner(router.orders, router.patience_s)
    app.add_route("/admin/health/check", HealthCheck(examiner))
    app.add_route(
        "/admin/route/explain", Explain(router.routing, router.store, router.publisher)
    )
    app.add_route("/admin/sessions", History(router.store, "sessions"))
    app.add_route("/admin/requests", History(router.store, "requests"))
    app.add_route("/admin/decisions", History(router.store, "decisions"))
    app.add_route("/admin/requests/{request_id}", OneRequest(router.store))
    proxy_keys = router.proxy_keys, router.key_publisher
    app.add_route("/admin/keys", ProxyKeys(*proxy_keys))
    app.add_route("/admin/keys/{key_id}", OneProxyKey(*proxy_keys))
    _add_registry_routes(app, router, examiner)
    app.add_route("/internal/owners", Owners(router.store))
    for path, (name, content_type) in FILES.items():
        app.add_route(path, Page(name, content_type))
    app.add_route("/openapi.json", OpenApi())
    app.add_route("/docs", Docs(CSP))


def _add_registry_routes(app: App, router: Router, examiner: Examiner) -> None:
    rows, registry, around = router.registry_rows, router.registry, router.around
    app.add_route("/admin/providers", Providers(rows, registry, around))
    app.add_route("/admin/providers/test", ProviderTest(rows, examiner, around))
    app.add_route("/admin/providers/{provider_id}", OneProvider(rows, registry, around))
    app.add_route("/admin/models", Models(rows, registry))
    app.add_route("/admin/models/test", ModelTest(rows, examiner, around))
    # An alias may have slashes.
    app.add_route("/admin/models/{alias:path}", OneModel(rows, registry))


def create_app() -> App:
    """The ASGI application, from the environment's settings."""
    try:
        settings = RouterSettings.read(os.environ)
        HealthSettings.read(os.environ)
        ProviderRules.read(os.environ)
        Egress.read(os.environ)
        resources_from_environment(os.environ, settings.upstream_base_url)
    except SettingError as error:
        sys.stderr.write(f"responses-proxy: {error}\n")
        raise SystemExit(2) from None
    logs.configure("router", settings.log_level)
    if settings.open_admin:
        log.warning(
            "PROXY_ALLOW_OPEN_ADMIN=true: whoever reaches the gateway or this port may "
            "use /admin, and every upstream key through it",
            action="admin_open",
        )
    app: App = falcon.asgi.App()
    for kind in (Exception, ProxyError, falcon.HTTPError):
        app.add_error_handler(kind, say)
    app.add_middleware(Browsers(settings.guard))
    app.add_middleware(Lifespan(app, settings))
    return app
