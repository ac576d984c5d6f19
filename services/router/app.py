"""Composition root of the router. Granian calls `create_app`, and its worker builds
the rest at startup."""

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
from libs.common.redis.check_queue import Orders
from libs.common.redis.client import ClientCaller
from libs.common.redis.key_table import KeyTable
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
from services.router.admin.auth.access import AdminToken, Browsers
from services.router.admin.auth.tokens import FixedToken, KeptToken
from services.router.admin.explain import Explain
from services.router.admin.health_checks import Examiner, HealthCheck
from services.router.admin.history import Decisions, OneRequest, Requests, Sessions
from services.router.admin.keys import OneProxyKey, ProxyKeys
from services.router.admin.ledger import Auditor, LedgerView
from services.router.admin.registry.destinations import DestinationCheck
from services.router.admin.registry.models import Models, OneModel
from services.router.admin.registry.provider_tests import ModelTest, ProviderTest
from services.router.admin.registry.providers import (
    OneProvider,
    ProviderContext,
    Providers,
)
from services.router.admin.state import Events, Overview, State
from services.router.api.docs_page import Docs
from services.router.api.document import OpenApi, document
from services.router.catalogue import Publisher, build_catalogue
from services.router.dashboard_files import CSP, FILES, Page
from services.router.errors import say
from services.router.function_library import LIBRARY
from services.router.key_table import KeyPublisher
from services.router.owners import Owners
from services.router.probes import Healthz, Metrics, Readyz
from services.router.reaper import Reaper
from services.router.registry import Changes, RegistryReader
from services.router.shutdown import stopping_at_signal

log = structlog.get_logger()

LEASE_MS = 4_000
CHECK_MARGIN_S = 5.0  # for a check's order and result, and for a check before it

App = falcon.asgi.App[Any, Any]


class Router:
    """All components of the process."""

    def __init__(self, settings: RouterSettings) -> None:
        self._redis = connect(settings.redis_url)
        caller = ClientCaller(self._redis)
        stream = settings.telemetry_stream
        self.routing = RoutingFunctions(caller, stream, _terms(settings), LIBRARY)
        self.store = open_store(settings.url)
        self.proxy_keys = ProxyKeyRows(self.store.fetch)
        self.key_publisher = KeyPublisher(self.proxy_keys, KeyTable(caller))
        self.orders = Orders(self._redis)
        check_s = HealthSettings.read(os.environ).timeout_seconds
        self.patience_s = check_s + CHECK_MARGIN_S
        self.stopping = stopping_at_signal()
        backlog = TelemetryStream(self._redis, stream, settings.telemetry_group)
        self.context = _provider_context(settings)
        resources = self.context.ours
        self.registry_rows = RegistryRows(self.store.fetch)
        self.registry = RegistryReader(
            self.registry_rows, Changes(caller), resources, self.context.sealer
        )
        self._lease = LeaderLease(self._redis, "router", _holder(), LEASE_MS)
        self.publisher = Publisher(
            self.routing, build_catalogue(resources), self._lease, self.registry
        )
        self.registry.on_change = self.publisher.renew
        silent_ms = int(settings.gateway_silence_seconds * 1000)
        self.auditor = Auditor(self.routing, backlog, self.store, silent_ms)
        self.overview = Overview(
            self.routing,
            backlog,
            self.store,
            self.auditor,
            self.publisher,
            open_admin=settings.open_admin,
        )
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
            log.info("router lease not released, it will expire", action="lease_left")
        await self.store.close()
        await self._redis.aclose()


def _terms(settings: RouterSettings) -> Terms:
    return Terms(
        session_ttl_ms=int(settings.session_ttl_seconds * 1000),
        id_ttl_ms=int(settings.affinity_ttl_seconds * 1000),
        cooldown_ms=int(settings.cooldown_seconds * 1000),
    )


def _provider_context(settings: RouterSettings) -> ProviderContext:
    return ProviderContext(
        Sealer(settings.fernet_keys),
        os.environ,
        resources_from_environment(os.environ, settings.upstream_base_url),
        settings.upstream_base_url,
        DestinationCheck(ProviderRules.read(os.environ), Egress.read(os.environ)),
    )


def _token(settings: RouterSettings, store: Store) -> FixedToken | KeptToken | None:
    """None if /admin is open."""
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
    """A background loop that ends also ends the process; supervisor restarts it."""
    log.error(
        "background loop ended", action="loop_ended", cause=repr(task.exception())
    )
    os.kill(os.getpid(), signal.SIGTERM)


def _holder() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Lifespan:
    """Builds the router in its worker, on the worker's event loop."""

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
    resources = _resources(router)
    described = document(resources)
    pages = {path: Page(*file) for path, file in FILES.items()}
    documents = {"/openapi.json": OpenApi(described), "/docs": Docs(described, CSP)}
    for path, resource in {**resources, **pages, **documents}.items():
        app.add_route(path, resource)


def _resources(router: Router) -> dict[str, object]:
    """The resources that declare operations, by path."""
    store, overview = router.store, router.overview
    examiner = Examiner(router.orders, router.patience_s)
    proxy_keys = router.proxy_keys, router.key_publisher
    rows, registry, context = router.registry_rows, router.registry, router.context
    return {
        "/admin/state": State(overview),
        "/admin/ledger": LedgerView(router.auditor),
        "/admin/events": Events(overview, router.stopping),
        "/admin/health/check": HealthCheck(examiner),
        "/admin/route/explain": Explain(router.routing, store, router.publisher),
        "/admin/sessions": Sessions(store),
        "/admin/requests": Requests(store),
        "/admin/requests/{id}": OneRequest(store),
        "/admin/decisions": Decisions(store),
        "/admin/keys": ProxyKeys(*proxy_keys),
        "/admin/keys/{key_id}": OneProxyKey(*proxy_keys),
        "/admin/providers": Providers(rows, registry, context),
        "/admin/providers/test": ProviderTest(rows, examiner, context),
        "/admin/providers/{provider_id}": OneProvider(rows, registry, context),
        "/admin/models": Models(rows, registry),
        "/admin/models/test": ModelTest(rows, examiner, context),
        # An alias may contain slashes.
        "/admin/models/{alias:path}": OneModel(rows, registry),
        "/internal/owners": Owners(store),
        "/healthz": Healthz(),
        "/readyz": Readyz(lambda: router.publisher.published, store.ping),
        "/metrics": Metrics(overview.shared),
    }


def create_app() -> App:
    """The ASGI application, with settings from the environment."""
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
            "PROXY_ALLOW_OPEN_ADMIN=true: anyone who can connect to the gateway or to "
            "this port can use /admin, and every upstream key through it",
            action="admin_open",
        )
    app: App = falcon.asgi.App()
    for kind in (Exception, ProxyError, falcon.HTTPError):
        app.add_error_handler(kind, say)
    app.add_middleware(Browsers(settings.guard))
    app.add_middleware(Lifespan(app, settings))
    return app
