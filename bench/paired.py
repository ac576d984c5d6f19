"""Measures the cost of a change: `python -m bench.paired CHECKOUT` compares this code
with another checkout, which needs its own `.venv` (`make setup` there).

Both gateways run at the same time and take turns, with proxy keys required and every
feature on. Each round gives one ratio, so changes of the machine's speed cancel out.
The processes are started several times, because the same code can differ by a tenth
between starts. Then the calls of Redis are compared (`acquire.py`)."""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop

from bench import acquire
from bench.parts import measure
from bench.parts.servers import LOAD_CORE, Server, direct, gateway
from libs.common.runtime import logs

STARTS = 6
ROUNDS = 3
LONGEST_S = 900
WHAT = {"JSON": measure.BUSY, "streams": measure.STREAMS}

Ratios = dict[str, list[float]]


async def compare(folder: Path, other: Path, starts: int) -> str:
    """A table of CPU time ratios, this code / the other: medians of all rounds."""
    ratios: Ratios = {
        name: [] for name in (*WHAT, *(f"Redis, {name}" for name in WHAT))
    }
    for start in range(starts):
        place = folder / f"start-{start}"
        place.mkdir()
        await _measure(place, other, start, ratios)
    lines = [f"CPU ÷ that of the other checkout, {starts} starts of {ROUNDS} rounds"]
    for name, found in ratios.items():
        low, high = min(found), max(found)
        middle = statistics.median(found)
        lines.append(f"  {name:<16}{middle:>8.3f}   ({low:.2f} to {high:.2f})")
    return "\n".join(lines)


async def _measure(folder: Path, other: Path, start: int, ratios: Ratios) -> None:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(direct(folder))
        servers: list[Server] = []
        checkouts: list[tuple[str, Path | None]] = [("ours", None), ("theirs", other)]
        if start % 2:  # swap the start order, which may affect memory placement
            checkouts.reverse()
        for name, checkout in checkouts:
            place = folder / name
            place.mkdir()
            made = gateway(place, upstream, checkout=checkout)
            servers.append(await stack.enter_async_context(made))
        if start % 2:
            servers.reverse()
        for number in range(ROUNDS):
            await _round(servers, number, ratios)


async def _round(servers: Sequence[Server], number: int, ratios: Ratios) -> None:
    ours, theirs = servers
    turn = [ours, theirs] if number % 2 else [theirs, ours]
    for name, load in WHAT.items():
        costs = {s.port: (await measure.sample(s, load)).costs() for s in turn}
        mine, other = costs[ours.port], costs[theirs.port]
        ratios[name].append(mine["cpu"] / other["cpu"])
        ratios[f"Redis, {name}"].append(mine["valkey"] / other["valkey"])


def _timed(work: Coroutine[Any, Any, str]) -> str:
    return uvloop.run(asyncio.wait_for(work, LONGEST_S))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.paired")
    parser.add_argument("checkout", type=Path, help="the code to compare with")
    parser.add_argument("--starts", type=int, default=STARTS)
    chosen = parser.parse_args()
    logs.configure("bench", "error")
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place, other = Path(folder), chosen.checkout.resolve()
        print(_timed(compare(place, other, chosen.starts)), flush=True)
        print(_timed(acquire.compare(place, other)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
