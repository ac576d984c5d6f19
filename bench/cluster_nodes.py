"""Measures what nodes of a Redis Cluster bring to stacks that share it:
`python -m bench.cluster_nodes`, a minute and a half.

One stack on one node, three stacks on one node, and three on a node each: their
namespaces (PROXY_REDIS_NAMESPACE) decide their slots. The callers of each stack make
the calls of requests, acquire and the release with its event, as quickly as Redis
answers.

The machine has no core for each node. So each gets the same small share of one by the
kernel's quota, which is far less than the callers could use: Redis is what is full.
With a small share most time is spent waiting, which several nodes do at the same time,
so the rate alone could overstate the gain. The CPU time of Redis for a request is
compared too, and the lower of the two gains is reported. Ratios hold for any machine,
rates do not."""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.parts import quota
from bench.parts.cpu import cores
from bench.routing import Bench
from libs.common.redis.cluster.layout import slot_of
from libs.common.redis.hot_connection import HotConnection, hot_connection
from libs.common.redis.keys import Keys
from libs.common.redis.shared_connection import connect
from libs.common.runtime import logs
from tests.support.databases.valkey_cluster import RANGES, Node, valkey_cluster

NODE_CORE, LOAD_CORE = cores()
SHARE = 0.1  # of a core, for each node
PERIOD_US = 20_000
CALLERS = 64  # of each stack
RESOURCES = 20
WARM_S = 0.3
LONGEST_S = 110
FULL = 0.9  # of the quota
# By their slots: one on each node, and three on the first.
APART = [Keys(name) for name in ("b", "c", "d")]
TOGETHER = [Keys(name) for name in ("b", "two", "west")]
ARRANGEMENTS = ALONE, CROWDED, SPREAD = (
    "one stack, one node",
    "three stacks, one node",
    "three stacks, three nodes",
)
_LINE = "{:<28}{:>12}{:>16}{:>14}{:>12}"


@dataclass(frozen=True, slots=True)
class Row:
    """`cpu_us`: of Redis for a request. `full`: the share of the quota that the nodes
    used, the least. `load`: this process, as a share of a core."""

    rate: float
    cpu_us: float
    full: float
    load: float

    def shown(self, name: str) -> str:
        return _LINE.format(
            name, f"{self.rate:,.0f}", f"{self.cpu_us:,.1f}",
            f"{self.full:.0%}", f"{self.load:.0%}",
        )  # fmt: skip


class Stack:
    """The calls of one stack's gateways."""

    def __init__(self, bench: Bench, shared: HotConnection) -> None:
        self.bench = bench
        self.shared = shared
        self.served = 0
        self.over = False

    async def serve(self) -> None:
        while not self.over:
            await self.bench.request()
            self.served += 1


@asynccontextmanager
async def stack(url: str, keys: Keys) -> AsyncIterator[Stack]:
    shared = hot_connection(url, keys)
    await shared.open()
    async with connect(url, keys) as redis:
        bench = Bench(redis, shared, keys)
        await bench.publish(RESOURCES)
        yield Stack(bench, shared)
    await shared.close()


async def take(nodes: Sequence[Node], used: Sequence[Stack], seconds: float) -> Row:
    """One arrangement. `nodes`: those that the stacks use."""
    for each in used:
        each.over = False
        await each.bench.tidy()
    async with asyncio.TaskGroup() as group:
        for each in used:
            for _ in range(CALLERS):
                group.create_task(each.serve())
        await asyncio.sleep(WARM_S)
        before = await _usage(nodes, used)
        await asyncio.sleep(seconds)
        after = await _usage(nodes, used)
        for each in used:
            each.over = True
    took = after.at - before.at
    served = after.served - before.served
    redis = [b - a for a, b in zip(before.redis, after.redis, strict=True)]
    return Row(
        served / took,
        sum(redis) / served * 1e6,
        min(redis) / took / SHARE,
        (after.load - before.load) / took,
    )


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of CPU until `at`."""

    at: float
    served: int
    redis: list[float]
    load: float


async def _usage(nodes: Sequence[Node], used: Sequence[Stack]) -> Usage:
    # All at the same time: a node at the end of its quota takes a while.
    redis = list(await asyncio.gather(*map(_cpu_s, nodes)))
    served = sum(each.served for each in used)
    return Usage(time.monotonic(), served, redis, time.process_time())


async def _cpu_s(node: Node) -> float:
    text: str = await node.ask("INFO", "cpu")
    fields = dict(line.split(":") for line in text.splitlines() if ":" in line)
    return float(fields["used_cpu_user"]) + float(fields["used_cpu_sys"])


def arranged(name: str, number: int) -> list[Keys]:
    """The stacks that are busy. One alone is on another node in each round."""
    if name == ALONE:
        return [APART[number % len(APART)]]
    return TOGETHER if name == CROWDED else APART


def nodes_of(namespaces: Sequence[Keys], nodes: Sequence[Node]) -> list[Node]:
    """The nodes with the slots of the namespaces, each once."""
    places = {
        number
        for keys in namespaces
        for number, (first, last) in enumerate(RANGES)
        if first <= slot_of(keys) <= last
    }
    return [nodes[number] for number in sorted(places)]


async def run(rounds: int, seconds: float, folder: Path) -> str:
    async with AsyncExitStack() as exits:
        cluster = await exits.enter_async_context(valkey_cluster(folder))
        every = {keys.namespace: keys for keys in (*APART, *TOGETHER)}
        stacks = {
            name: await exits.enter_async_context(stack(cluster.url, keys))
            for name, keys in every.items()
        }
        pids = [node.server.pid for node in cluster.nodes]
        for pid in pids:
            os.sched_setaffinity(pid, {NODE_CORE})
        exits.enter_context(quota.limited(pids, SHARE, PERIOD_US))
        taken: dict[str, list[Row]] = {name: [] for name in ARRANGEMENTS}
        for number in range(rounds):
            # In turns, and each first as often: other programs are busy, too.
            for which in range(len(ARRANGEMENTS)):
                name = ARRANGEMENTS[(number + which) % len(ARRANGEMENTS)]
                namespaces = arranged(name, number)
                nodes = nodes_of(namespaces, cluster.nodes)
                used = [stacks[keys.namespace] for keys in namespaces]
                taken[name].append(await take(nodes, used, seconds))
        return report(taken)


def _median(rows: Sequence[Row]) -> Row:
    return Row(
        *(
            statistics.median(getattr(row, name) for row in rows)
            for name in Row.__slots__
        )
    )


def _ratio(of_rounds: Iterable[float]) -> float:
    """The median of what rows of the same round say: the machine's speed changes."""
    return statistics.median(of_rounds)


def report(taken: dict[str, list[Row]]) -> str:
    found = {name: _median(rows) for name, rows in taken.items()}
    one, together, apart = taken.values()
    lines = [
        f"each node has {SHARE:.0%} of a core; medians of {len(one)} rounds",
        _LINE.format("", "requests/s", "Redis, µs each", "of the quota", "load"),
        *(row.shown(name) for name, row in found.items()),
    ]
    for what, rows, nodes in (("one node", together, 1), ("three nodes", apart, 3)):
        rate = _ratio(
            row.rate / first.rate for row, first in zip(rows, one, strict=True)
        )
        cpu = _ratio(
            nodes * first.cpu_us / row.cpu_us
            for row, first in zip(rows, one, strict=True)
        )
        lines.append(
            f"three stacks on {what} against one stack: {min(rate, cpu):.2f} times "
            f"(by the rate {rate:.2f}, by CPU {cpu:.2f})"
        )
    if min(row.full for row in found.values()) < FULL:
        lines.append("Redis was not full: the rates are no limits of its nodes")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_nodes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5)
    given = parser.parse_args()
    logs.configure("bench", "error")
    if not quota.allowed():
        sys.exit("this needs to set quotas (cgroup cpu), which is not allowed here")
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = run(given.rounds, given.seconds, Path(folder))
        print(uvloop.run(asyncio.wait_for(work, LONGEST_S)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
