"""`python -m services.ingest`: builds the service by hand and runs it."""

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
from services.ingest.consumer import Consumer, Habits
from services.ingest.memory import collect_seldom
from services.ingest.payloads import BATCH_SIZE, PayloadSink, decode_payload
from services.ingest.prices import read_prices
from services.ingest.readiness import readiness
from services.ingest.schema_maintenance import Rhythm, Upkeep


def run(environ: Mapping[str, str] | None = None) -> None:
    """Until SIGTERM. Exits with 2, after one line, when a setting makes no sense or
    the database belongs to a newer version."""
    try:
        settings = IngestSettings.read(os.environ if environ is None else environ)
        prices = settings.prices_file and read_prices(settings.prices_file)
    except SettingError as error:
        sys.exit(_complain(error))
    logs.configure("ingest", settings.log_level)
    collect_seldom()
    try:
        asyncio.run(serve(settings, prices or None))
    except SchemaTooNew as error:
        sys.exit(_complain(error))


def _complain(error: Exception) -> int:
    sys.stderr.write(f"{error}\n")
    return 2


async def serve(
    settings: IngestSettings, prices: Sequence[Price] | None = None
) -> None:
    """The whole service: two loops and its probes."""
    store = open_store(settings.url)
    redis = connect(settings.redis_url)
    stream = TelemetryStream(redis, settings.telemetry_stream, settings.telemetry_group)
    consumer = Consumer(stream, store, _habits(settings))
    payloads = TelemetryStream(
        redis, keys.payloads(settings.telemetry_stream), settings.telemetry_group
    )
    bodies = Consumer(payloads, PayloadSink(store), _payload_habits(settings))
    rhythm = Rhythm(keep_days=settings.retention_days)
    upkeep = Upkeep(store, lambda: datetime.now(UTC).date(), rhythm, prices)

    async def prepared() -> None:
        if not upkeep.prepared.is_set():
            raise StoreAway("The schema is not ready yet.")

    async def ready() -> Readiness:
        return await readiness(
            {"redis": stream.depth, "sql": store.ping, "schema": prepared}
        )

    probes = await serve_probes(settings.host, settings.ingest_port, ready)
    try:
        await run_until_signalled(
            upkeep.run,
            upkeep.then(consumer.run),
            upkeep.then(bodies.run),
            drain_seconds=settings.drain_seconds,
        )
    except SystemExit:
        if upkeep.refusal:
            raise upkeep.refusal from None
        raise
    finally:
        probes.close()
        await store.close()
        await redis.aclose()


def _payload_habits(settings: IngestSettings) -> Habits:
    """A loop of its own: however many bodies wait, events do not wait behind them."""
    rule = BatchRule(min(BATCH_SIZE, settings.batch_size), settings.batch_seconds)
    return replace(
        _habits(settings),
        rule=rule,
        decode=decode_payload,
        parts=unpacked,
        stream="payloads",
    )


def _habits(settings: IngestSettings) -> Habits:
    # Replicas may share a configuration: host and process tell them apart.
    name = f"{settings.consumer}-{socket.gethostname()}-{os.getpid()}"
    return Habits(
        name=name,
        rule=BatchRule(settings.batch_size, settings.batch_seconds),
        claim_s=settings.claim_seconds,
    )


if __name__ == "__main__":
    run()
