"""Composition root of ingest."""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

from libs.common.contracts.prices import Price, PriceList
from libs.common.errors import SettingError, StoreAway
from libs.common.providers.rules import check_alert_address
from libs.common.redis.hot_connection import hot_connection
from libs.common.redis.keys import payloads as payloads_of
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.runtime import logs
from libs.common.runtime.lifecycle import run_until_signalled
from libs.common.runtime.probes import Readiness, serve_probes
from libs.common.runtime.program import collect_seldom
from libs.common.settings.http_proxies import Egress
from libs.common.settings.services import IngestSettings
from libs.common.store.factory import open_store
from libs.common.store.interface import SchemaTooNew
from libs.common.store.prices import read_prices
from libs.common.store.store import Store
from services.ingest.alerts.outbox import Alerts
from services.ingest.alerts.webhook import deliveries
from services.ingest.batch import BatchRule
from services.ingest.consumer import Consumer, ConsumerOptions
from services.ingest.payloads import (
    BATCH_SIZE,
    FIRST_READ,
    PayloadSink,
    decode_payloads,
)
from services.ingest.price_updates import PriceUpdates
from services.ingest.priority import Confined, cpus, give_way
from services.ingest.readiness import readiness
from services.ingest.schema_maintenance import MaintenanceOptions, SchemaMaintenance
from services.ingest.usage import Usage

# Batches are thousands of objects without cycles, which reference counting frees. With
# the default thresholds, the search for cycles takes a quarter of the CPU time.
COLLECTED_AFTER = (50_000, 20, 50)


def run(environ: Mapping[str, str] | None = None) -> None:
    """Run until SIGTERM. Exit with status 2 and a one-line message if a setting is
    invalid or the schema is newer than this version supports."""
    environ = os.environ if environ is None else environ
    try:
        settings = IngestSettings.read(environ)
        prices = settings.prices_file and read_prices(settings.prices_file)
        check_alert_address(environ)
        Egress.read(environ)
    except SettingError as error:
        sys.exit(_report(error))
    logs.configure("ingest", settings.log_level)
    collect_seldom(*COLLECTED_AFTER)
    give_way()
    try:
        asyncio.run(serve(settings, prices or None))
    except SchemaTooNew as error:
        sys.exit(_report(error))


def _report(error: Exception) -> int:
    sys.stderr.write(f"{error}\n")
    return 2


async def serve(
    settings: IngestSettings, prices: Sequence[Price] | None = None
) -> None:
    """Run the consumers, schema maintenance and probes."""
    store = _store(settings, prices)
    keys = settings.redis_keys
    redis = connect(settings.redis_url, keys)
    reads = hot_connection(settings.redis_url, keys)
    name, group = settings.telemetry_stream, settings.telemetry_group
    stream = TelemetryStream(redis, name, group, reads)
    payloads = TelemetryStream(redis, payloads_of(name), group)
    usage = Usage(PriceList(prices) if prices else None)
    alerts = Alerts(store.fetch) if settings.alert_webhook_url else None
    options = _options(settings)
    consumer = Consumer(stream, store, replace(options, usage=usage, alerts=alerts))
    of_bodies = _payload_options(options, settings)
    bodies = Consumer(payloads, PayloadSink(store), of_bodies)
    kept = MaintenanceOptions(keep_days=settings.retention_days)
    maintenance = SchemaMaintenance(store, _today, kept, prices)

    async def prepared() -> None:
        if not maintenance.prepared.is_set():
            raise StoreAway("The schema is not migrated yet.")

    async def ready() -> Readiness:
        ends = {"redis": stream.depth, "sql": store.ping, "schema": prepared}
        return await readiness(ends)

    sending = [each.run for each in deliveries(settings, store.fetch)]
    host = settings.host_of("ingest")
    probes = await serve_probes(host, settings.ingest_port, ready)
    try:
        await reads.open()
        await run_until_signalled(
            maintenance.run,
            maintenance.then(consumer.run),
            maintenance.then(bodies.run),
            maintenance.then(PriceUpdates(store.fetch, usage, store.rollups).run),
            *map(maintenance.then, sending),
            drain_seconds=settings.drain_seconds,
        )
    except SystemExit:
        if maintenance.refusal:
            raise maintenance.refusal from None
        raise
    finally:
        probes.close()
        await store.close()
        await reads.close()
        await redis.aclose()


def _store(settings: IngestSettings, prices: Sequence[Price] | None) -> Store:
    store = open_store(settings.url)
    store.rollups.prices = PriceList(prices or ())
    store.rollups.shard = settings.redis_namespace
    return store


def _today() -> date:
    return datetime.now(UTC).date()


def _payload_options(
    options: ConsumerOptions, settings: IngestSettings
) -> ConsumerOptions:
    """Options of the consumer for bodies, which must not delay the one for events."""
    size = min(BATCH_SIZE, settings.batch_size)
    rule = BatchRule(size, settings.batch_seconds, few=1, first=FIRST_READ)
    return replace(options, rule=rule, decode=decode_payloads, stream="payloads")


def _options(settings: IngestSettings) -> ConsumerOptions:
    # Replicas may share a configuration, so the name includes host and process id.
    name = f"{settings.consumer}-{socket.gethostname()}-{os.getpid()}"
    return ConsumerOptions(
        name=name,
        rule=BatchRule(settings.batch_size, settings.batch_seconds),
        claim_s=settings.claim_seconds,
        lagged=Confined(cpus()).lagged,
    )
