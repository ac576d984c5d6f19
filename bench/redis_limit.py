"""Measures where one Redis becomes the limit of several gateways, and what happens
beyond: `python -m bench.redis_limit`.

Real rates need more cores than a small machine has. So valgrind slows Redis down, by
the same factor for all it does, until it is what is full. First comes as much as Redis
can serve, then shares of that at fixed rates. The shape of the table holds for any
Redis; the rate of a Redis at full speed is 1 / its CPU time for a request."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from bench.parts import load, measure
from bench.parts.cpu import Usage
from bench.parts.load import Load, Tally
from bench.parts.servers import SERVER_CORE, STREAM, Server, direct, gateways
from libs.common.runtime import logs

SLOWLY = ("--tool=callgrind", "--callgrind-out-file=/dev/null")
SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0)
CONNECTIONS = 16  # of each gateway
_LINE = "{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}{:>12}"


@dataclass(frozen=True, slots=True)
class Row:
    """One rate. Times in ms; `busy`: Redis, as a share of a core."""

    offered: float
    served: float
    p50: float
    p99: float
    busy: float
    degraded: float  # share of the decisions

    def __str__(self) -> str:
        offered = f"{self.offered:,.0f}" if self.offered else "all"
        return _LINE.format(
            offered, f"{self.served:,.0f}", f"{self.p50:,.1f}", f"{self.p99:,.1f}",
            f"{self.busy:.0%}", f"{self.cpu_us:,.0f}", f"{self.degraded:.1%}",
        )  # fmt: skip

    @property
    def cpu_us(self) -> float:
        """Redis's CPU time for a request."""
        return self.busy / self.served * 1e6 if self.served else 0.0


async def take(servers: Sequence[Server], what: Load) -> Row:
    """One load, shared by the gateways."""
    await servers[0].tidy()
    usages: list[Usage] = []
    each = replace(what, rate=what.rate / len(servers))
    parties = servers[0].parties
    first, *others = servers
    tallies = await asyncio.gather(
        load.run(each, first.port, lambda: usages.append(parties.usage())),
        *(load.run(each, other.port, lambda: None) for other in others),
    )
    before, after = usages
    seconds = after.at - before.at
    return _row(
        what, tallies, seconds, after.valkey - before.valkey, await _degraded(first)
    )


def _row(
    what: Load,
    tallies: Sequence[Tally],
    seconds: float,
    redis_s: float,
    degraded: float,
) -> Row:
    whole = [each * 1000 for tally in tallies for each in tally.whole]
    return Row(
        what.rate,
        len(whole) / seconds,
        measure.percentile(whole, 50),
        measure.percentile(whole, 99),
        redis_s / seconds,
        degraded,
    )


async def _degraded(server: Server) -> float:
    """The share of decisions that were made without Redis."""
    assert server.redis is not None
    entries: Any = await server.redis.xrange(STREAM)
    decisions = [f[b"data"] for _, f in entries if f[b"kind"] == b"decision"]
    alone = sum(b'"degraded":true' in data for data in decisions)
    return alone / max(len(decisions), 1)


async def run(count: int, seconds: float, folder: Path) -> None:
    binary = shutil.which("valgrind")
    if binary is None:
        sys.exit("valgrind is not installed")
    os.sched_setaffinity(0, {SERVER_CORE})  # Redis has the other one alone
    async with (
        direct(folder, SERVER_CORE) as upstream,
        gateways(folder, upstream, count, [binary, *SLOWLY]) as slow,
    ):
        await _table(slow, seconds)


async def _table(servers: Sequence[Server], seconds: float) -> None:
    print(f"{len(servers)} gateways on one Redis under valgrind")
    print(_LINE.format("offered", "served", "p50 ms", "p99 ms", "Redis",
                       "Redis, µs", "degraded"))  # fmt: skip
    full = Load(CONNECTIONS, seconds, warm_s=2.0)
    most = await take(servers, full)
    print(most, flush=True)
    for share in SHARES:
        rate = most.served * share
        spread = CONNECTIONS * len(servers) / rate  # not all at the same moment
        print(
            await take(servers, replace(full, rate=rate, stagger_s=spread)), flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateways", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=6.0)
    given = parser.parse_args()
    logs.configure("bench", "warning")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        uvloop.run(run(given.gateways, given.seconds, Path(folder)))


if __name__ == "__main__":
    main()
