"""Composition root of the health service."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable

import httpx
import structlog

from libs.common.errors import RedisAway, SettingError
from libs.common.providers.credentials import Credentials
from libs.common.providers.http_transport import EgressTransport
from libs.common.providers.resolver import CheckedResolver
from libs.common.providers.rules import ProviderRules
from libs.common.providers.sealing import Sealer
from libs.common.redis.check_queue import Orders
from libs.common.redis.client import ClientCaller
from libs.common.redis.leader import LeaderLease
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions, Terms
from libs.common.runtime import logs
from libs.common.runtime.lifecycle import process_name, run_until_signalled
from libs.common.runtime.probes import Readiness, serve_probes
from libs.common.runtime.tls import client_context
from libs.common.settings.http_proxies import Egress
from libs.common.settings.services import HealthSettings
from services.health.check_queue import CheckQueueWorker
from services.health.key_test import KeyTester
from services.health.prober import CheckRequest, Prober, Schedule

log = structlog.get_logger()

LEASE_MS = 3_000


class Health:
    """The health service and its dependencies."""

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        keys = settings.redis_keys
        self._redis = connect(settings.redis_url, keys)
        self._routing = RoutingFunctions(
            ClientCaller(self._redis),
            settings.telemetry_stream,
            Terms(cooldown_ms=int(settings.cooldown_seconds * 1000)),
            keys=keys,
        )
        rules = ProviderRules.read(os.environ)
        self._client = httpx.AsyncClient(
            timeout=settings.timeout_seconds,
            # A redirect would send the key to another address.
            follow_redirects=False,
            transport=EgressTransport(
                Egress.read(os.environ),
                client_context(settings.upstream_ca_file),
                CheckedResolver(rules.destinations),
            ),
        )
        check_request = CheckRequest(settings.path, settings.timeout_seconds)
        credentials = Credentials(os.environ, Sealer(settings.fernet_keys), rules)
        prober = Prober(self._routing, self._client, check_request, credentials)
        key_tester = KeyTester(self._client, credentials, settings.timeout_seconds)
        self._lease = LeaderLease(self._redis, "health", process_name(), LEASE_MS, keys)
        self._schedule = Schedule(
            prober.check_all,
            self._lease,
            self._routing.catalogue_version,
            settings.interval_seconds,
        )
        orders = Orders(self._redis, keys)
        self._queue_worker = CheckQueueWorker(orders, prober, key_tester)

    async def run(self) -> None:
        settings = self._settings
        loops: list[Callable[[asyncio.Event], Awaitable[None]]] = [
            self._queue_worker.run
        ]
        if settings.enabled:
            loops.append(self._schedule.run)
        host = settings.host_of("health")
        async with await serve_probes(host, settings.health_port, self._ready):
            log.info("health service started", action="health_started")
            try:
                # A hanging check must not delay the shutdown.
                await run_until_signalled(*loops, drain_seconds=2.0)
            finally:
                await self._close()

    async def _ready(self) -> Readiness:
        role = "leads" if self._schedule.leads else "stands by"
        details = {"prober": role if self._settings.enabled else "disabled"}
        try:
            await self._routing.catalogue_version()
        except RedisAway:
            return Readiness(False, ("redis: unreachable",), details)
        return Readiness(True, (), details)

    async def _close(self) -> None:
        with contextlib.suppress(RedisAway):  # the lease expires
            await self._lease.release()
        await self._client.aclose()
        await self._redis.aclose()


def main() -> None:
    try:
        settings = HealthSettings.read(os.environ)
        Egress.read(os.environ)
        ProviderRules.read(os.environ)
    except SettingError as error:
        sys.stderr.write(f"responses-proxy: {error}\n")
        raise SystemExit(2) from None
    logs.configure("health", settings.log_level)
    asyncio.run(Health(settings).run())
