"""Compares what routing calls cost the Redis server with another checkout, in one run:
`python -m bench.acquire CHECKOUT`, which needs its own `.venv`.

Each checkout measures its own calls (`routing.py`) with its own function library, in a
process and on a Redis of its own. They take turns, so changes of the machine's speed
cancel out."""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop

from bench.parts.cpu import cores
from bench.parts.servers import valkey
from bench.routing import Bench
from libs.common.redis.shared_connection import SharedConnection, connect
from libs.common.runtime import logs
from tests.support.processes.processes import ROOT

SIZES = (4, 20)  # resources
ROUNDS = 40
LONGEST_S = 300
SERVER_CORE, LOAD_CORE = cores()

Costs = dict[str, tuple[float, float]]
"""By call: microseconds of the server's CPU, and of executing alone."""


class NotMeasured(Exception):
    """The process of a checkout ended, as that of one with another layout does."""


class Calls:
    """The process that measures the calls of one checkout."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def round(self, resources: int = 0) -> Costs:
        """The costs of one round. `resources`: empty Redis first, and publish so
        many. Raises `NotMeasured`."""
        writer, reader = self._process.stdin, self._process.stdout
        assert writer is not None
        assert reader is not None
        if self._process.returncode is None:
            writer.write(b"%d\n" % resources)
        line = await reader.readline()
        if not line:
            raise NotMeasured
        costs: Costs = json.loads(line)
        return costs


@asynccontextmanager
async def calls(folder: Path, checkout: Path) -> AsyncIterator[Calls]:
    """The calls of a checkout, on a Redis of their own."""
    async with valkey(folder, core=SERVER_CORE) as (url, _):
        command = [
            *("taskset", "-c", str(LOAD_CORE), f"{checkout}/.venv/bin/python", "-P"),
            *(__file__, "--serve", url),
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(checkout)},
            cwd=checkout,
        )
        try:
            yield Calls(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


async def serve(url: str) -> None:
    """Measure a round for each line of standard input. Runs the code of the checkout
    whose interpreter this is."""
    redis, shared = connect(url), SharedConnection(connect(url))
    await shared.open()
    bench = Bench(redis, shared)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if int(line):
            await bench.prepare(int(line))
            await bench.round()  # every resource verified, every session bound
        costs = await bench.round()
        told = {kind: (cost.cpu_us, cost.executing_us) for kind, cost in costs.items()}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    await shared.close()
    await redis.aclose()


async def compare(folder: Path, other: Path) -> str:
    """A table: microseconds of the Redis server for each call, and their ratio to the
    other checkout's."""
    lines = [
        f"of the Redis server, ÷ that of the other checkout, {ROUNDS} rounds:",
        f"  {'':<32}{'CPU, µs':>16}{'÷':>7}{'executing, µs':>18}{'÷':>7}",
    ]
    async with AsyncExitStack() as stack:
        pair = [
            await stack.enter_async_context(calls(folder, checkout))
            for checkout in (ROOT, other)
        ]
        try:
            for size in SIZES:
                lines += await _rows(pair, size)
        except NotMeasured:
            return "The Redis calls of one of the checkouts cannot be measured."
    return "\n".join(lines)


async def _rows(pair: list[Calls], size: int) -> list[str]:
    taken: list[list[Costs]] = [[], []]
    for each in pair:
        await each.round(size)
    for number in range(ROUNDS):
        for which in (0, 1) if number % 2 else (1, 0):
            taken[which].append(await pair[which].round())
    ours, theirs = taken
    return [
        _row(f"{kind}, {size} resources", *([c[kind] for c in t] for t in taken))
        for kind in ours[0]
        if kind in theirs[0]
    ]


def _row(
    name: str, ours: list[tuple[float, float]], theirs: list[tuple[float, float]]
) -> str:
    cpu = statistics.median(a[0] / b[0] for a, b in zip(ours, theirs, strict=True))
    cpus = [statistics.median(cost[0] for cost in each) for each in (ours, theirs)]
    # Wall time, which other processes can only increase.
    least = [min(cost[1] for cost in each) for each in (ours, theirs)]
    return (
        f"  {name:<32}{cpus[0]:>8.1f}{cpus[1]:>8.1f}{cpu:>7.2f}"
        f"{least[0]:>10.1f}{least[1]:>8.1f}{least[0] / least[1]:>7.2f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.acquire")
    parser.add_argument("checkout", type=Path, nargs="?", help="to compare with")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    logs.configure("bench", "error")
    if chosen.serve:
        uvloop.run(serve(chosen.serve))
        return 0
    if chosen.checkout is None:
        parser.error("name a checkout to compare with")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = compare(Path(folder), chosen.checkout.resolve())
        sys.stdout.write(uvloop.run(asyncio.wait_for(work, LONGEST_S)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
