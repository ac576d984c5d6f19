"""What limits of a key cost, per request: `python -m bench.limited`. Compares a key
with limits per minute, and one that has a budget too, with a key without any:

- the calls alone: in Redis the CPU time and the time of executing, and in the gateway
  the CPU time of asking and of reading the answers,

- a whole gateway and its Redis under JSON requests: the CPU time; with `--instructions`
  the instructions, and nothing else. That needs valgrind and takes four minutes. What
  else the machine does matters little."""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import uvloop

from bench.parts import load, measure, wire
from bench.parts.callgrind import Counted, per_request, under
from bench.parts.load import Load
from bench.parts.servers import (
    LOAD_CORE,
    SERVER_CORE,
    STREAM,
    Server,
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
from libs.common.routing.budgets import Noted, Quota, Sum, quota_at
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Ask, Release, SpendUnknown
from libs.common.runtime import logs

ROUNDS = 30
GATEWAY_ROUNDS = 12
LONGEST_S = 900
RESOURCES = 4
REQUESTS, TOKENS = 10**6, 10**9  # per minute
BUDGET = Budget("key:bench", tokens=10**10, nanos=10**12)
NOW_MS = int(time.time() * 1000)
NONE_NOTED = Noted(0, set())
HEADS = (
    f"  {'':<22}{'Redis, µs':>15}{'÷':>7}{'executing, µs':>16}{'÷':>7}{'caller ÷':>10}"
)
KINDS = {
    "no limits": None,
    "limits per minute": quota_at("minute", REQUESTS, TOKENS, (), NOW_MS),
    "limits and a budget": quota_at("bench", REQUESTS, TOKENS, (BUDGET,), NOW_MS),
}
# For a whole gateway, a key of each kind.
COUNT_ROUNDS, ANSWERS = 4, 400
TEAM = "team_bench"
KEYS = {name: f"{wire.KEY[:-1]}{number}" for number, name in enumerate(KINDS)}


def _holders() -> dict[str, Principal]:
    """By the hash of their keys. Their ids have the same length. All are of one team:
    the upstream's answers have one id, and an id has one owner."""
    found = {}
    for name, key in KEYS.items():
        quota, id_ = KINDS[name], f"key_{key[-6:]}"
        principal = Principal(id=id_, team_id=TEAM)
        if quota is not None:
            budgets = [
                msgspec.structs.replace(each, subject=f"key:{id_}")
                for each in quota.budgets
            ]
            principal = Principal(
                id=id_,
                team_id=TEAM,
                requests_per_minute=REQUESTS,
                tokens_per_minute=TOKENS,
                budgets=tuple(budgets),
            )
        found[secret_hash(key.encode())] = principal
    return found


class Limited(Bench):
    """The same calls for a key with limits."""

    quota: Quota | None = None
    own_s = 0.0  # CPU time of this process

    def _ask(self, *, named: bool) -> Ask:
        return replace(super()._ask(named=named), quota=self.quota)

    def _released(self, ask: Ask) -> Release:
        release = super()._released(ask)
        if self.quota is None:
            return release
        return replace(
            release,
            quota=self.quota,
            tokens=450,
            nanos=9_000,
        )

    async def known(self) -> None:
        """Redis gets to know the limits, and that nothing was spent so far."""
        for self.quota in KINDS.values():
            ask = replace(self._ask(named=False), tells=True)
            with suppress(SpendUnknown):
                await self._routing.acquire(ask)
        for recount in (await self._routing.recounts())[1]:
            await self._routing.recounted(recount, NONE_NOTED, Sum(0, 0))


def per_call(costs: dict[str, Cost]) -> Cost:
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
                found[name].append((per_call(costs), own_us))
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


@asynccontextmanager
async def _keys_of(server: Server) -> AsyncIterator[None]:
    """The gateway knows a key of each kind, and their spend is summed."""
    assert server.redis is not None
    table = KeyTable(ClientCaller(server.redis))
    await table.change(await table.version(), _holders())
    summing = asyncio.create_task(
        _sums(RoutingFunctions(ClientCaller(server.redis), STREAM))
    )
    for key in KEYS.values():
        await load.complete(Load(connections=1, seconds=0, key=key), server.port, 50)
    yield
    summing.cancel()
    with suppress(asyncio.CancelledError):
        await summing


async def compare_gateways(folder: Path) -> str:
    """The CPU time of a whole gateway, and of its Redis, in turns."""
    found: dict[str, list[list[float]]] = {name: [] for name in KEYS}
    async with (
        direct(folder) as upstream,
        gateway(folder, upstream) as server,
        _keys_of(server),
    ):
        for number in range(GATEWAY_ROUNDS):
            for name in list(KEYS)[:: 1 if number % 2 else -1]:
                busy = replace(measure.BUSY, key=KEYS[name])
                costs = (await measure.sample(server, busy)).costs()
                found[name].append([costs["cpu"], costs["valkey"]])
    return _table("ms of CPU time", found, ".3f")


async def count_gateways(folder: Path) -> str:
    """The same in instructions."""
    outs = [folder / "gateway-counts", folder / "redis-counts"]
    found: dict[str, list[list[float]]] = {name: [] for name in KEYS}
    async with (
        direct(folder) as upstream,
        gateway(
            folder,
            upstream,
            settings={"PYTHONHASHSEED": "0"},
            under=under(outs[0]),
            redis_under=under(outs[1]),
        ) as server,
        _keys_of(server),
    ):
        parties = server.parties.server, server.parties.valkey
        counted = [Counted(*each) for each in zip(parties, outs, strict=True)]
        for number in range(COUNT_ROUNDS):
            for name in list(KEYS)[:: 1 if number % 2 else -1]:
                what = Load(connections=8, seconds=0, key=KEYS[name])
                found[name].append(await per_request(server, counted, what, ANSWERS))
    return _table("instructions", found, ",.0f")


def _table(unit: str, found: dict[str, list[list[float]]], form: str) -> str:
    lines = [
        f"{unit} per JSON request, {len(found['no limits'])} rounds:",
        f"  {'':<22}{'gateway':>15}{'÷':>7}{'Redis':>16}{'÷':>7}",
    ]
    base = list(zip(*found["no limits"], strict=True))
    for name, rounds in found.items():
        shown = ""
        for ours, theirs in zip(zip(*rounds, strict=True), base, strict=True):
            shown += f"{statistics.median(ours):>15{form}} {_ratio(ours, theirs):>7.3f}"
        lines.append(f"  {name:<22}{shown}")
    return "\n".join(lines)


async def _sums(routing: RoutingFunctions) -> None:
    """As the router does."""
    while True:
        for recount in (await routing.recounts())[1]:
            await routing.recounted(recount, NONE_NOTED, Sum(0, 0))
        await asyncio.sleep(0.2)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.limited")
    parser.add_argument(
        "--instructions", action="store_true", help="of a whole gateway and its Redis"
    )
    counts = parser.parse_args().instructions
    logs.configure("bench", "error")
    os.sched_setaffinity(0, {LOAD_CORE})
    for work in (count_gateways,) if counts else (compare, compare_gateways):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            found = uvloop.run(asyncio.wait_for(work(Path(folder)), LONGEST_S))
        print(found, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
