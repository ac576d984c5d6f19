"""Composition root of the router. Granian calls `create_app`, and its worker builds
the rest at startup."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

import falcon.asgi
import structlog

from libs.common.errors import ProxyError, SettingError
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from libs.common.redis.check_queue import Orders
from libs.common.redis.client import ClientCaller
from libs.common.redis.cluster.client import ClusterClient
from libs.common.redis.key_table import KeyTable
from libs.common.redis.leader import LeaderLease
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.runtime import logs
from libs.common.runtime.lifecycle import end, process_name
from libs.common.settings.http_proxies import Egress
from libs.common.settings.resources import resources_from_environment
from libs.common.settings.services import HealthSettings, RouterSettings
from libs.common.store.admin.audit_log import AuditLog
from libs.common.store.admin.tokens import AdminTokenRow, NamedTokenRows
from libs.common.store.factory import open_store
from libs.common.store.prices import PriceRows
from libs.common.store.providers import RegistryRows
from libs.common.store.proxy_keys import ProxyKeyRows, TeamRows
from libs.common.store.store import Store
from services.router.admin.access import AdminTokens, Audit, OneAdminToken, WhoAmI
from services.router.admin.auth.access import AdminToken, Browsers
from services.router.admin.auth.tokens import FixedToken, KeptToken, NamedTokens
from services.router.admin.explain import Explain
from services.router.admin.health_checks import Examiner, HealthCheck
from services.router.admin.history import Decisions, OneRequest, Requests, Sessions
from services.router.admin.keys import OneProxyKey, ProxyKeys
from services.router.admin.ledger import Auditor, LedgerView
from services.router.admin.live.attention import Attention, AttentionView
from services.router.admin.live.charts import ChartsView
from services.router.admin.live.limited_keys import LimitedKeys
from services.router.admin.live.stream import Events, Feed
from services.router.admin.prices import Prices, PricesOfModel
from services.router.admin.registry.destinations import DestinationCheck
from services.router.admin.registry.models import Models, OneModel
from services.router.admin.registry.provider_tests import ModelTest, ProviderTest
from services.router.admin.registry.providers import (
    OneProvider,
    ProviderContext,
    Providers,
)
from services.router.admin.spent import Spent
from services.router.admin.state import Overview, State
from services.router.admin.teams import OneTeam, Teams
from services.router.api.compression import Compression
from services.router.api.docs_page import docs
from services.router.api.document import document, open_api
from services.router.api.head import answer_head
from services.router.budgets.recounter import Recounter
from services.router.budgets.spend import SpendRows
from services.router.catalogue import Publisher, build_catalogue
from services.router.cluster.library import ClusterLibrary
from services.router.conditions import RouterConditions
from services.router.dashboard_files import CSP, FILES, page
from services.router.errors import say
from services.router.function_library import library as library_of
from services.router.key_table import KeyPublisher
from services.router.owners import Owners
from services.router.probes import Healthz, Metrics, Readyz
from services.router.reaper import Reaper
from services.router.registry import RegistryReader
from services.router.shards.stack import Shards
from services.router.shutdown import die_with, kept, stopping_at_signal

log = structlog.get_logger()

LEASE_MS = 4_000
CHECK_MARGIN_S = 5.0  # for a check's order and result, and for a check before it

App = falcon.asgi.App[Any, Any]


class Router:
    """All components of the process."""

    def __init__(self, settings: RouterSettings) -> None:
        self._open_redis(settings)
        self.store = open_store(settings.url)
        self.proxy_keys = ProxyKeyRows(self.store.fetch)
        self.key_publisher = KeyPublisher(self.proxy_keys, self.keys)
        checks = HealthSettings.read(os.environ)
        self.patience_s = checks.timeout_seconds + CHECK_MARGIN_S
        self.stopping = stopping_at_signal()
        backlog = TelemetryStream(
            self._redis, settings.telemetry_stream, settings.telemetry_group
        )
        self._lease = self._leads("router", process_name())
        self._open_registry(settings)
        silent_ms = int(settings.gateway_silence_seconds * 1000)
        shard = settings.redis_namespace
        self.auditor = Auditor(self.routing, backlog, self.store, silent_ms, shard)
        self.overview = Overview(
            self.routing,
            backlog,
            self.store,
            self.auditor,
            self.publisher,
            open_admin=settings.open_admin,
        )
        prober = self._leads("health", "")
        self.conditions = RouterConditions(
            self.overview.shared,
            self.auditor,
            backlog,
            prober.holder if checks.enabled else None,
            self.shards.problem,
        )
        self.attention = self._attention()
        self.feed = Feed(self.overview.shared, self.store, self.attention.items)
        self._recounter = self._recounts(backlog, settings.heartbeat_seconds)
        self._reaper = Reaper(self.routing, self._lease, silent_ms)
        self.token = _token(settings, self.store)
        self.token_rows = NamedTokenRows(self.store.fetch)
        self.named_tokens = NamedTokens(self.token_rows)
        self._loops: list[asyncio.Task[None]] = []

    def _open_redis(self, settings: RouterSettings) -> None:
        """What the router has there, by the names of its stack."""
        self._keys = keys = settings.redis_keys
        self._redis = connect(settings.redis_url, keys)
        self._caller = caller = ClientCaller(self._redis)
        self._library = library_of(keys)
        self.routing = RoutingFunctions(
            caller,
            settings.telemetry_stream,
            Terms.of(settings),
            self._library,
            keys=keys,
        )
        self.keys = KeyTable(caller, keys)
        self.orders = Orders(self._redis, keys)

    def _open_registry(self, settings: RouterSettings) -> None:
        """What is published, and what notices that it was changed in SQL."""
        self.context = _provider_context(settings)
        resources, fetch = self.context.ours, self.store.fetch
        self.registry_rows = RegistryRows(fetch)
        self.registry = RegistryReader(
            self.registry_rows, resources, self.context.sealer
        )
        self.publisher = Publisher(
            self.routing, build_catalogue(resources), self._lease, self.registry
        )
        self.registry.on_change = self.publisher.renew
        readers = self.registry.changed, self.key_publisher.compare
        self.shards = Shards(fetch, self._caller, readers, self._keys)

    def start(self) -> None:
        loops = (
            self.publisher.run(),
            self._reaper.run(),
            self._recounter.run(),
            self.key_publisher.run(),
            self.registry.run(),
            self.conditions.run(),
            *self.shards.loops(),
            *self._of_cluster(),
        )
        self._loops = [kept(loop) for loop in loops]
        if isinstance(self.token, KeptToken):
            self._loops.append(asyncio.create_task(self.token.make_first()))
        log.info("router started", action="router_started")

    def _of_cluster(self) -> Iterator[Coroutine[Any, Any, None]]:
        if isinstance(self._redis, ClusterClient):
            library = ClusterLibrary(
                self._redis, self._library, self._lease, self._keys
            )
            yield library.run()

    def _leads(self, role: str, holder: str) -> LeaderLease:
        return LeaderLease(self._redis, role, holder, LEASE_MS, self._keys)

    def _attention(self) -> Attention:
        return Attention(
            self.overview.shared,
            self.conditions.problems,
            self.auditor,
            self.routing.impaired,
            LimitedKeys(self.keys, self.routing).used,
            self.store.fetch,
        )

    def _recounts(self, backlog: TelemetryStream, heartbeat_s: float) -> Recounter:
        spend = SpendRows(self.store.fetch)
        shards = self.shards.spending
        return Recounter(self.routing, spend, backlog, self._lease, shards, heartbeat_s)

    async def stop(self) -> None:
        for loop in self._loops:
            loop.remove_done_callback(die_with)
        await end(self._loops)
        try:
            await self._lease.release()
        except ProxyError:
            log.info("router lease not released, it will expire", action="lease_left")
        await self.store.close()
        await self._redis.aclose()


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
    origin = settings.public_url or f"http://127.0.0.1:{settings.port}"
    return KeptToken(AdminTokenRow(store.fetch), settings.data_dir, origin)


class Lifespan:
    """Builds the router in its worker, on the worker's event loop."""

    def __init__(self, app: App, settings: RouterSettings) -> None:
        self._app = app
        self._settings = settings
        self._router: Router | None = None

    async def process_startup(self, _scope: Any, _event: Any) -> None:
        self._router = router = Router(self._settings)
        router.start()
        self._app.add_middleware(AdminToken(router.token, router.named_tokens))
        _add_routes(self._app, router)

    async def process_shutdown(self, _scope: Any, _event: Any) -> None:
        if self._router is not None:
            await self._router.stop()


def _add_routes(app: App, router: Router) -> None:
    resources = _resources(router)
    described = document(resources)
    pages = {path: page(*file) for path, file in FILES.items()}
    documents = {"/openapi.json": open_api(described), **docs(described, CSP)}
    for path, resource in {**resources, **pages, **documents}.items():
        answer_head(resource)
        app.add_route(path, resource)


def _resources(router: Router) -> dict[str, object]:
    """The resources that declare operations, by path."""
    store, overview = router.store, router.overview
    examiner = Examiner(router.orders, router.patience_s)
    spent = Spent(router.routing)
    proxy_keys = router.proxy_keys, router.key_publisher, spent
    teams = TeamRows(store.fetch), router.key_publisher, spent
    tokens = router.token_rows, router.named_tokens
    prices = PriceRows(store.fetch), router.registry
    rows, registry, context = router.registry_rows, router.registry, router.context
    return {
        "/admin/state": State(overview),
        "/admin/ledger": LedgerView(router.auditor),
        "/admin/events": Events(router.feed, router.stopping),
        "/admin/health/check": HealthCheck(examiner),
        "/admin/route/explain": Explain(router.routing, store, router.publisher),
        "/admin/attention": AttentionView(router.attention),
        "/admin/charts": ChartsView(store.fetch),
        "/admin/sessions": Sessions(store),
        "/admin/requests": Requests(store),
        "/admin/requests/{id}": OneRequest(store),
        "/admin/decisions": Decisions(store),
        "/admin/keys": ProxyKeys(*proxy_keys),
        "/admin/keys/{key_id}": OneProxyKey(*proxy_keys),
        "/admin/teams": Teams(*teams),
        "/admin/teams/{team_id}": OneTeam(*teams),
        "/admin/providers": Providers(rows, registry, context),
        "/admin/providers/test": ProviderTest(rows, examiner, context),
        "/admin/providers/{provider_id}": OneProvider(rows, registry, context),
        "/admin/models": Models(rows, registry),
        "/admin/models/test": ModelTest(rows, examiner, context),
        # An alias may contain slashes.
        "/admin/models/{alias:path}": OneModel(rows, registry),
        "/admin/prices": Prices(*prices),
        "/admin/prices/{model:path}": PricesOfModel(*prices),
        "/admin/tokens": AdminTokens(*tokens),
        "/admin/tokens/{name}": OneAdminToken(*tokens),
        "/admin/whoami": WhoAmI(),
        "/admin/audit": Audit(AuditLog(store.fetch)),
        "/internal/owners": Owners(store, router.shards.has_others),
        "/healthz": Healthz(),
        "/readyz": Readyz(
            lambda: router.publisher.published, store.ping, store.unpriced
        ),
        "/metrics": Metrics(
            overview.shared, router.auditor, router.conditions.oldest_s
        ),
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
    app.add_middleware(Compression())
    app.add_middleware(Browsers(settings.guard))
    app.add_middleware(Lifespan(app, settings))
    return app
