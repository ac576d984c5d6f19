"""Measures what requests occupy: bytes of Redis for leases, affinity and events, and
bytes of SQL for rows. Sizes do not depend on how busy the machine is.

Requests are acquired and released by the routing functions and stored by ingest's own
loop; the records are as long as those of an agent's request with a session, a cache and
three minted ids (response, message, reasoning)."""

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import uuid_utils
from redis.asyncio import Redis

from bench.ingest_rate import prepare
from libs.common.contracts.catalogue import Catalogue
from libs.common.redis.shared_connection import SharedConnection, connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Ask, Release, digest, model_digest
from libs.common.settings.resources import resources_from_environment
from libs.common.store.factory import open_store
from libs.common.upstream_answers.verdicts import Verdict
from services.gateway.ledger.lease_head import lease_head
from services.gateway.ledger.record import Record, request_event
from services.ingest.batch import BatchRule
from services.ingest.consumer import Consumer, ConsumerOptions
from services.router.function_library import LIBRARY
from tests.support.databases.postgres import fresh_database, running_postgres
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import running_valkey
from tests.support.processes.waiting import eventually

STREAM = "telemetry:events"
AT_ONCE = 200
TURNS = 20  # requests of a session
TABLES = ("requests", "decisions", "minted_ids", "sessions")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes for each."""

    resources: int
    redis: dict[str, float]
    postgres: dict[str, float] = field(default_factory=dict)  # a row with its indexes


class Requests:
    """Requests of agents, and what Redis holds of them."""

    def __init__(self, redis: Redis, shared: SharedConnection, count: int) -> None:
        self._redis = redis
        self._routing = RoutingFunctions(shared, STREAM, library=LIBRARY)
        self._records = [_record(number) for number in range(count)]
        self._chosen: dict[str, str] = {}

    async def prepare(self, resources: int) -> None:
        await self._redis.flushall()
        await self._routing.load_library()
        names = ",".join(f"sk-bench-{number}" for number in range(resources))
        found = resources_from_environment(
            {"OPENAI_API_KEYS": names}, "http://127.0.0.1:1/v1"
        )
        await self._routing.publish(Catalogue(version="v", resources=found), "e")
        await self._redis.xtrim(STREAM, maxlen=0, approximate=False)

    async def measured(self) -> dict[str, float]:
        """Acquires all, then releases all; leaves their events in the stream."""
        count = len(self._records)
        empty = await self._used()
        await self._each(self._acquire)
        acquired, decisions = await self._used(), await self._stream()
        await self._each(self._release)
        released, events = await self._used(), await self._stream()
        sessions = count / TURNS
        affinity = released - empty - events
        session = await self._memory("session")
        return {
            "lease": (acquired - empty - decisions) / count,
            "session": session,
            "minted id": (affinity - session * sessions) / (3 * count),
            "decision in the stream": decisions / count,
            "request in the stream": (events - decisions) / count,
        }

    async def _each(self, call: Any) -> None:
        for start in range(0, len(self._records), AT_ONCE):
            part = self._records[start : start + AT_ONCE]
            await asyncio.gather(*(call(record) for record in part))

    async def _acquire(self, record: Record) -> None:
        name = record.session_id or ""
        decision = await self._routing.acquire(
            Ask(
                request_id=record.id,
                decision_id=str(uuid_utils.uuid7()),
                attempt=1,
                gateway_id=record.gateway_id,
                pool_id=None,
                session_id=name,
                session=digest(name),
                model=model_digest(record.model),
                bound=(),
                account_bound=False,
                tried=(),
                previous="",
                lease=lease_head(record),
                draw=secrets.randbelow(2**31),
            )
        )
        self._chosen[record.id] = decision.resource_id or ""

    async def _release(self, record: Record) -> None:
        resource_id = record.resource_id = self._chosen.pop(record.id)
        record.account_id, record.attempts = "org-0123456789abcdef", 1
        _finish(record)
        await self._routing.release(
            Release(
                request_id=record.id,
                gateway_id=record.gateway_id,
                resource_id=resource_id,
                verdict=Verdict(kind="ok", latency_ms=812.3),
                session=digest(record.session_id or ""),
                model=record.model,
                learned=tuple(map(digest, record.minted)),
                event=request_event(record),
            )
        )

    async def _used(self) -> float:
        found: Any = await self._redis.info("memory")
        return float(found["used_memory"])

    async def _stream(self) -> float:
        used: Any = await self._redis.memory_usage(STREAM, samples=0)
        return float(used)

    async def _memory(self, kind: str) -> float:
        """The mean size of the keys of a kind; a session has an entry of a sorted set,
        too."""
        keys = [key async for key in self._redis.scan_iter(f"{{rpx}}:{kind}:*")]
        sizes: list[Any] = [await self._redis.memory_usage(key) for key in keys]
        index: Any = await self._redis.memory_usage("{rpx}:sessions", samples=0)
        return float(sum(sizes) + index) / len(keys)


def _record(number: int) -> Record:
    return Record(
        id=str(uuid_utils.uuid7()),
        created_at_ms=int(time.time() * 1000),
        method="POST",
        path="/v1/responses",
        gateway_id="gateway-7d9c8b-1427-3dab96",
        session_id=f"01a20b43-8305-7382-9b63-{number // TURNS:012d}",
        proxy_key_id="key_01a20e3495f1737cb304105804f678c3",
        model="gpt-5.5",
        transport="sse",
        request_bytes=61_440,
    )


def _finish(record: Record) -> None:
    tail = secrets.token_hex(25)
    record.minted = tuple(f"{kind}_{tail}" for kind in ("resp", "msg", "rs"))
    record.completed_at_ms, record.status_code = record.created_at_ms + 15_000, 200
    record.outcome, record.usage_state = "completed", "final"
    record.latency_ms, record.upstream_ms = 15_012.345, 402.118
    record.first_token_ms, record.overhead_ms = 911.204, 0.412
    record.input_tokens, record.cached_tokens = 15_230, 13_952
    record.output_tokens, record.reasoning_tokens = 512, 256
    record.total_tokens, record.response_bytes = 15_742, 48_900
    record.upstream_model, record.service_tier = "gpt-5.5-2026-10-01", "default"
    record.response_id = record.minted[0]
    record.previous_response_id = f"resp_{secrets.token_hex(25)}"


async def _stored(redis_url: str, url: str) -> dict[str, float]:
    """Bytes of a row of each table with its indexes, after ingest stored all events."""
    await prepare(url)
    before = _occupied(url)
    store = open_store(url)
    async with connect(redis_url) as redis:
        stream = TelemetryStream(redis, STREAM, "workers")
        options = ConsumerOptions("one", BatchRule(1000, 0.2), 30)
        stop = asyncio.Event()
        running = asyncio.create_task(Consumer(stream, store, options).run(stop))

        async def emptied() -> bool:
            return await stream.depth() == 0

        await eventually(emptied, within_s=120)
        stop.set()
        await running
    await store.close()
    after = _occupied(url)
    return {t: (after[t] - before[t]) / _rows(url, t) for t in TABLES}


def _occupied(url: str) -> dict[str, float]:
    """Bytes of each table with its partitions and indexes."""
    query = """
        SELECT coalesce(sum(pg_total_relation_size(relid)), pg_total_relation_size(%s))
        FROM pg_partition_tree(%s)
    """
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("VACUUM ANALYZE")
        found = {t: database.execute(query, [t, t]).fetchone() for t in TABLES}
    return {table: float(row[0]) for table, row in found.items() if row}


def _rows(url: str, table: str) -> int:
    ((count,),) = fetch(url, f"SELECT count(*) FROM {table}")  # noqa: S608 - ours
    return int(count)


async def measure(folder: Path, resources: int, count: int) -> Sizes:
    with (
        running_valkey(folder) as redis_url,
        running_postgres() as server,
        fresh_database(server) as url,
    ):
        async with connect(redis_url) as redis:
            shared = SharedConnection(connect(redis_url))
            await shared.open()
            requests = Requests(redis, shared, count)
            await requests.prepare(resources)
            found = await requests.measured()
            await shared.close()
        return Sizes(resources, found, await _stored(redis_url, url))
