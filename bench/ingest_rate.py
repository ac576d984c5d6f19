"""Events per second from stream to SQL, one ingest process, on both databases.

python -m bench.ingest_rate [events]
"""

import asyncio
import os
import resource
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from libs.common.redis_client import connect
from libs.common.store.opening import open_store
from libs.common.streams import TelemetryStream
from services.ingest.batch import BatchRule
from services.ingest.consumer import Consumer, Habits
from tests.support.postgres import running_postgres
from tests.support.telemetry import decision_event, request_event, streamed
from tests.support.valkey import running_valkey
from tests.support.waiting import eventually

STREAM = "telemetry:events"
CHUNK = 1000


async def fill(url: str, count: int) -> None:
    """Half requests, half decisions; 100 sessions; created now. An answer mints
    a response, a message and a reasoning item."""
    now_ms = time.time_ns() // 1_000_000
    async with connect(url) as redis:
        for start in range(0, count // 2, CHUNK):
            pipe = redis.pipeline(transaction=False)
            for n in range(start, min(start + CHUNK, count // 2)):
                known = {"created_at_ms": now_ms + n, "session_id": f"s{n % 100}"}
                tail = secrets.token_hex(24)
                request = request_event(
                    f"r{n:09}",
                    model="gpt-5",
                    resource_id="openai-1",
                    input_tokens=900,
                    output_tokens=100,
                    total_tokens=1000,
                    latency_ms=812.5,
                    response_id=f"resp_{tail}",
                    minted=tuple(f"{kind}_{tail}" for kind in ("resp", "msg", "rs")),
                    **known,
                )
                decision = decision_event(f"r{n:09}", **known)
                for event in (streamed(decision, f"d{n:09}"), streamed(request)):
                    data = event.event.model_dump_json()
                    fields: dict[Any, Any] = {
                        "kind": event.kind,
                        "id": event.id,
                        "v": 1,
                        "data": data,
                    }
                    pipe.xadd(STREAM, fields)
            await pipe.execute()


async def emptied(stream: TelemetryStream) -> bool:
    return await stream.depth() == 0


async def drain(redis_url: str, database_url: str, count: int) -> None:
    store = open_store(database_url)
    await store.migrate()
    await fill(redis_url, count)
    async with connect(redis_url) as redis:
        stream = TelemetryStream(redis, STREAM, "workers")
        consumer = Consumer(stream, store, Habits("one", BatchRule(500, 0.2), 30))
        stop = asyncio.Event()
        cpu, began = time.process_time(), time.perf_counter()
        running = asyncio.create_task(consumer.run(stop))
        await eventually(lambda: emptied(stream), within_s=600, every_s=0.05)
        seconds, busy = time.perf_counter() - began, time.process_time() - cpu
        stop.set()
        await running
    stored = (await store.counts()).requests
    await store.close()
    assert stored == count // 2
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{database_url.partition(':')[0]:>10}: {count / seconds:8,.0f} events/s, "
        f"{busy / count * 1e6:5.0f} µs CPU of ingest per event, peak {peak_mb} MB"
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    print(f"{count} events, half of them requests; {os.cpu_count()} cores")
    with (
        tempfile.TemporaryDirectory() as folder,
        running_valkey(Path(folder)) as redis_url,
        running_postgres() as postgres,
    ):
        asyncio.run(drain(redis_url, f"sqlite:///{folder}/p.sqlite3", count))
        asyncio.run(drain(redis_url, f"{postgres}/postgres", count))


if __name__ == "__main__":
    main()
