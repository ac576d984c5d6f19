"""Measures events per second from stream to SQL: one ingest process on one core, on
both databases; Redis and Postgres run on another core.

- `python -m bench.ingest_rate compare [events]`: relative to bare writes of the same
  rows
- `python -m bench.ingest_rate drain [events]`: a backlog, with memory over time"""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from bench.parts import cpu, raw_copy
from bench.parts.events import STREAM, fill
from libs.common.redis.hot_connection import hot_connection
from libs.common.redis.shared_connection import connect
from libs.common.redis.telemetry_stream import TelemetryStream
from libs.common.runtime import logs
from libs.common.runtime.program import collect_seldom
from libs.common.store.factory import open_store
from services.ingest.app import COLLECTED_AFTER
from services.ingest.batch import BatchRule
from services.ingest.consumer import Consumer, ConsumerOptions
from tests.support.databases.postgres import running_postgres
from tests.support.databases.valkey import running_valkey
from tests.support.processes.waiting import eventually

SERVER_CORE, LOAD_CORE = cpu.cores()
ROUNDS = 3
BATCH = 1_000
PAGE = os.sysconf("SC_PAGE_SIZE")
_numbers = itertools.count(1)
_LINE = "{:<46}{:>11}{:>11}"


@dataclass(frozen=True, slots=True)
class Machinery:
    """Addresses and process ids of the servers."""

    folder: Path
    redis_url: str
    postgres: str

    def database(self, kind: str) -> str:
        """Create a database; returns its URL."""
        name = f"bench_{next(_numbers)}"
        if kind == "sqlite":
            return f"sqlite:///{self.folder}/{name}.sqlite3"
        with psycopg.connect(f"{self.postgres}/postgres", autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}".encode())
        return f"{self.postgres}/{name}"


@contextmanager
def machinery() -> Iterator[Machinery]:
    """Servers on the load's core; this process, which ingests, on the other."""
    os.sched_setaffinity(0, {LOAD_CORE})
    with (
        tempfile.TemporaryDirectory(prefix="bench-ingest-") as folder,
        running_valkey(Path(folder)) as redis_url,
        running_postgres() as postgres,
    ):
        os.sched_setaffinity(0, {SERVER_CORE})
        yield Machinery(Path(folder), redis_url, postgres)


async def prepare(url: str) -> None:
    store = open_store(url)
    await store.migrate()
    await store.make_partitions(datetime.now(UTC).date())
    await store.close()


@dataclass(frozen=True, slots=True)
class Drained:
    rate: float  # events a second
    cpu_us: float  # of ingest, per event


async def drain(redis_url: str, url: str, count: int, *, tell: bool) -> Drained:
    """Drain the stream into the database with the service's own loop. Measured until
    less than a batch is left, because that waits until it is old enough."""
    store = open_store(url)
    reads = hot_connection(redis_url)
    await reads.open()
    async with connect(redis_url) as redis:
        stream = TelemetryStream(redis, STREAM, "workers", reads)
        consumer = Consumer(
            stream, store, ConsumerOptions("one", BatchRule(BATCH, 0.2), 30)
        )
        stop = asyncio.Event()
        busy, began = time.process_time(), time.perf_counter()
        running = asyncio.create_task(consumer.run(stop))
        if tell:
            await _tell(stream, count)

        while (left := await stream.depth()) >= BATCH:  # noqa: ASYNC110 - Redis knows
            await asyncio.sleep(0.005)
        seconds = time.perf_counter() - began
        busy = time.process_time() - busy

        async def emptied() -> bool:
            return await stream.depth() == 0

        await eventually(emptied, within_s=60)
        stop.set()
        await running
    assert (await store.counts()).requests == count // 2
    await store.close()
    await reads.close()
    return Drained((count - left) / seconds, busy / (count - left) * 1e6)


async def _tell(stream: TelemetryStream, count: int) -> None:
    """Print a line for each tenth of the backlog."""
    done, at = 0, time.perf_counter()
    while (left := await stream.depth()) > 0:
        now = time.perf_counter()
        if count - left - done >= count // 10:
            rate = (count - left - done) / (now - at)
            done, at = count - left, now
            print(f"{done:>12,} stored {rate:>10,.0f} events/s {_resident_mb():>6} MB")
        await asyncio.sleep(0.02)


def _resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * PAGE // 2**20


def _bare(source: str, target: str) -> float:
    if source.startswith("sqlite"):
        paths = [Path(url.removeprefix("sqlite:///")) for url in (source, target)]
        return raw_copy.insert(*paths)
    return raw_copy.copy(source, target)


def compare(count: int) -> str:
    """The table's ingest section: medians of interleaved rounds."""
    rates: dict[str, list[tuple[float, float, float]]] = {"sqlite": [], "postgres": []}
    with machinery() as parts:
        for kind in [*rates] * ROUNDS:
            url, reference = parts.database(kind), parts.database(kind)
            asyncio.run(prepare(url))
            asyncio.run(prepare(reference))
            asyncio.run(fill(parts.redis_url, count))
            drained = asyncio.run(drain(parts.redis_url, url, count, tell=False))
            bare = count / _bare(url, reference)
            rates[kind].append((drained.rate, drained.cpu_us, bare))
    return _rendered(rates)


def _rendered(rates: dict[str, list[tuple[float, float, float]]]) -> str:
    medians = {k: [statistics.median(c) for c in zip(*r, strict=True)]
               for k, r in rates.items()}  # fmt: skip
    ratios = [statistics.median(own / bare for own, _, bare in r)
              for r in rates.values()]  # fmt: skip
    shown = list(medians.values())
    return "\n".join([
        _LINE.format("ingest, one process on one core", *medians),
        _LINE.format("  events/s", *(f"{m[0]:,.0f}" for m in shown)),
        _LINE.format("  CPU-µs/event", *(f"{m[1]:.1f}" for m in shown)),
        _LINE.format("  bare COPY (SQLite: INSERT), events/s",
                     *(f"{m[2]:,.0f}" for m in shown)),
        _LINE.format("  ingest ÷ bare", *(f"{ratio:.2f}" for ratio in ratios)),
        _LINE.format("  ingest ÷ COPY into Postgres",
                     *(f"{m[0] / medians['postgres'][2]:.2f}" for m in shown)),
    ])  # fmt: skip


def show_drain(count: int) -> None:
    with machinery() as parts:
        for kind in ("postgres", "sqlite"):
            url = parts.database(kind)
            asyncio.run(prepare(url))
            asyncio.run(fill(parts.redis_url, count))
            print(f"{kind}: {count:,} events wait; {_resident_mb()} MB before")
            drained = asyncio.run(drain(parts.redis_url, url, count, tell=True))
            print(
                f"{drained.rate:,.0f} events/s in all, "
                f"{drained.cpu_us:.0f} µs CPU of ingest per event, "
                f"{_resident_mb()} MB after\n"
            )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ingest_rate")
    parser.add_argument("what", choices=("compare", "drain"))
    parser.add_argument("events", nargs="?", type=int, default=60_000)
    chosen = parser.parse_args()
    logs.configure("ingest", "error")
    collect_seldom(*COLLECTED_AFTER)
    if chosen.what == "compare":
        print(compare(chosen.events))
    else:
        show_drain(chosen.events)
    return 0


if __name__ == "__main__":
    sys.exit(main())
