"""Composition root of ingest: `python -m services.ingest`."""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from libs.common.errors import SettingError, StoreAway
from libs.common.redis import keys
from libs.common.redis.capture_batches import unpacked
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.runtime import logs
from libs.common.runtime.lifecycle import run_until_signalled
from libs.common.runtime.probes import Readiness, serve_probes
from libs.common.settings.services import IngestSettings
from libs.common.store.factory import open_store
from libs.common.store.interface import Price, SchemaTooNew
from services.ingest.batch import BatchRule
from services.ingest.consumer import Consumer, ConsumerOptions
from services.ingest.memory import collect_seldom
from services.ingest.payloads import BATCH_SIZE, PayloadSink, decode_payload
from services.ingest.prices import read_prices
from services.ingest.readiness import readiness
from services.ingest.schema_maintenance import MaintenanceOptions, SchemaMaintenance


def run(environ: Mapping[str, str] | None = None) -> None:
    """Run until SIGTERM. Exit with status 2 and a one-line message if a setting is
    invalid or the schema is newer than this version supports."""
    try:
        settings = IngestSettings.read(os.environ if environ is None else environ)
        prices = settings.prices_file and read_prices(settings.prices_file)
    except SettingError as error:
        sys.exit(_report(error))
    logs.configure("ingest", settings.log_level)
    collect_seldom()
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
    store = open_store(settings.url)
    redis = connect(settings.redis_url)
    stream = TelemetryStream(redis, settings.telemetry_stream, settings.telemetry_group)
    consumer = Consumer(stream, store, _options(settings))
    payloads = TelemetryStream(
        redis, keys.payloads(settings.telemetry_stream), settings.telemetry_group
    )
    bodies = Consumer(payloads, PayloadSink(store), _payload_options(settings))
    options = MaintenanceOptions(keep_days=settings.retention_days)
    maintenance = SchemaMaintenance(
        store, lambda: datetime.now(UTC).date(), options, prices
    )

    async def prepared() -> None:
        if not maintenance.prepared.is_set():
            raise StoreAway("The schema is not migrated yet.")

    async def ready() -> Readiness:
        return await readiness(
            {"redis": stream.depth, "sql": store.ping, "schema": prepared}
        )

    probes = await serve_probes(settings.host, settings.ingest_port, ready)
    try:
        await run_until_signalled(
            maintenance.run,
            maintenance.then(consumer.run),
            maintenance.then(bodies.run),
            drain_seconds=settings.drain_seconds,
        )
    except SystemExit:
        if maintenance.refusal:
            raise maintenance.refusal from None
        raise
    finally:
        probes.close()
        await store.close()
        await redis.aclose()


def _payload_options(settings: IngestSettings) -> ConsumerOptions:
    """Options of the consumer for bodies, which must not delay the one for events."""
    rule = BatchRule(min(BATCH_SIZE, settings.batch_size), settings.batch_seconds)
    return replace(
        _options(settings),
        rule=rule,
        decode=decode_payload,
        parts=unpacked,
        stream="payloads",
    )


def _options(settings: IngestSettings) -> ConsumerOptions:
    # Replicas may share a configuration, so the name includes host and process id.
    name = f"{settings.consumer}-{socket.gethostname()}-{os.getpid()}"
    return ConsumerOptions(
        name=name,
        rule=BatchRule(settings.batch_size, settings.batch_seconds),
        claim_s=settings.claim_seconds,
    )


if __name__ == "__main__":
    run()
