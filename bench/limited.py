"""What limits of a key cost, per request: `python -m bench.limited`. Compares the calls
of a key with limits per minute, and of one that has a budget too, with those of a key
without any: in Redis the CPU time and the time of executing, and in the gateway the CPU
time of asking and of reading the answers."""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from bench.parts import measure, wire
from bench.parts.servers import (
    LOAD_CORE,
    SERVER_CORE,
    STREAM,
    direct,
    gateway,
    valkey,
)
from bench.routing import Bench, Cost
from libs.common.budgets import Budget
from libs.common.proxy_keys import Principal, secret_hash
from libs.common.redis.client import ClientCaller
from libs.common.redis.key_table import KeyTable
from libs.common.redis.shared_connection import SharedConnection, connect
from libs.common.routing.budgets import Quota, quota_at
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Ask, Release
from libs.common.runtime import logs

ROUNDS = 30
GATEWAY_ROUNDS = 12
RESOURCES = 4
MANY = 10**12
BUDGET = Budget("key:bench", tokens=MANY, nanos=MANY, window="total")
NOW_MS = int(time.time() * 1000)
HOLDER = Principal(
    id="key_bench",
    requests_per_minute=MANY,
    tokens_per_minute=MANY,
    budgets=(Budget("key:key_bench", tokens=MANY, nanos=MANY, window="total"),),
)
HEADS = (
    f"  {'':<22}{'Redis, µs':>15}{'÷':>7}{'executing, µs':>16}{'÷':>7}{'caller ÷':>10}"
)
KINDS = {
    "no limits": None,
    "limits per minute": quota_at("minute", MANY, MANY, (), NOW_MS),
    "limits and a budget": quota_at("bench", MANY, MANY, (BUDGET,), NOW_MS),
}


class Limited(Bench):
    """The same calls for a key with limits."""

    quota: Quota | None = None
    own_s = 0.0  # CPU time of this process

    def _ask(self, *, named: bool) -> Ask:
        return msgspec.structs.replace(super()._ask(named=named), quota=self.quota)

    def _released(self, ask: Ask) -> Release:
        release = super()._released(ask)
        if self.quota is None:
            return release
        return msgspec.structs.replace(
            release,
            quota=self.quota.text,
            quota_id=self.quota.id,
            tokens=450,
            nanos=9_000,
        )

    async def known(self) -> None:
        """Nothing was spent so far."""
        with_budget = KINDS["limits and a budget"]
        assert with_budget is not None
        self.quota = with_budget
        try:
            await self._routing.acquire(self._ask(named=False))
        except Exception:  # noqa: BLE001 - its spend is unknown
            for recount in (await self._routing.recounts())[1]:
                await self._routing.recounted(recount, 0, 0)


def per_request(costs: dict[str, Cost]) -> Cost:
    """Of an acquire and a release, by load and by session."""
    calls = [cost for name, cost in costs.items() if name != "empty"]
    return Cost(
        sum(cost.cpu_us for cost in calls) / 2,
        sum(cost.executing_us for cost in calls) / 2,
    )


async def compare(folder: Path) -> str:
    found: dict[str, list[tuple[Cost, float]]] = {name: [] for name in KINDS}
    async with valkey(folder, core=SERVER_CORE) as (url, _):
        redis, shared = connect(url), SharedConnection(connect(url))
        await shared.open()
        bench = Limited(redis, shared)
        await bench.prepare(RESOURCES)
        await bench.round()
        await bench.known()
        for number in range(ROUNDS):
            names = list(KINDS)
            for name in names if number % 2 else reversed(names):
                bench.quota = KINDS[name]
                began = time.process_time()
                costs = await bench.round()
                own_us = (time.process_time() - began) * 1e6
                found[name].append((per_request(costs), own_us))
        await shared.close()
        await redis.aclose()
    return "\n".join(_lines(found))


def _lines(found: dict[str, list[tuple[Cost, float]]]) -> list[str]:
    base = found["no limits"]
    lines = [
        f"per request, {ROUNDS} rounds; ÷ that of a key without limits:",
        HEADS,
    ]
    for name, rounds in found.items():
        cpu = [cost.cpu_us for cost, _ in rounds]
        least = min(cost.executing_us for cost, _ in rounds)
        lines.append(
            f"  {name:<22}{statistics.median(cpu):>15.1f}"
            f"{_ratio(cpu, [cost.cpu_us for cost, _ in base]):>7.3f}{least:>16.2f}"
            f"{least / min(cost.executing_us for cost, _ in base):>7.3f}"
            f"{_ratio([own for _, own in rounds], [own for _, own in base]):>10.3f}"
        )
    return lines


async def compare_gateways(folder: Path) -> str:
    """The CPU time of a whole gateway, and of its Redis, for the same key with limits
    and a budget as without, in turns."""
    ratios: dict[str, list[float]] = {"gateway": [], "Redis": []}
    async with direct(folder) as upstream, gateway(folder, upstream) as server:
        assert server.redis is not None
        table = KeyTable(ClientCaller(server.redis))
        routing = RoutingFunctions(ClientCaller(server.redis), STREAM)
        for number in range(GATEWAY_ROUNDS):
            costs = {}
            for limited in (True, False) if number % 2 else (False, True):
                holder = HOLDER if limited else Principal(id="key_bench")
                hashed = secret_hash(wire.KEY.encode())
                await table.change(await table.version(), {hashed: holder})
                summing = asyncio.create_task(_sums(routing))
                await asyncio.sleep(1.5)  # more than a heartbeat
                await measure.sample(server, measure.ALONE)
                sampled = await measure.sample(server, measure.BUSY)
                summing.cancel()
                costs[limited] = sampled.costs()
            ratios["gateway"].append(costs[True]["cpu"] / costs[False]["cpu"])
            ratios["Redis"].append(costs[True]["valkey"] / costs[False]["valkey"])
    shown = (f"{k} {statistics.median(v):.3f}" for k, v in ratios.items())
    return f"a gateway under JSON, {GATEWAY_ROUNDS} rounds, ÷: {', '.join(shown)}"


async def _sums(routing: RoutingFunctions) -> None:
    """As the router does."""
    while True:
        for recount in (await routing.recounts())[1]:
            await routing.recounted(recount, 0, 0)
        await asyncio.sleep(0.2)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def main() -> int:
    logs.configure("bench", "error")
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for work in (compare, compare_gateways):
            found = uvloop.run(asyncio.wait_for(work(Path(folder)), 300))
            sys.stdout.write(f"{found}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
