"""Measures whether memory grows: `python -m bench.soak [--minutes 20] [--rate 500]`.

`responses-proxy up` runs with SQLite, in the form that this checkout has. Half of the
requests are JSON and half streams. Every request has a new session, and its answer new
ids, so a gateway's memory of 50,000 sessions and as many ids is full long before the
second half, by which growth is measured. Redis keeps ids and sessions for a day: its
growth is data, up to its bounds."""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import uvloop

from bench.parts import stack, wire
from bench.parts.load import JsonAsker, LoadError, StreamAsker, Tally
from bench.parts.servers import direct
from bench.parts.stack import POSTGRES, System
from libs.common.runtime import logs
from libs.common.runtime.compiled import form

CONNECTIONS = 32
SAMPLES = 40
WATCHED = tuple(name for name in stack.NAMES if name != POSTGRES)
_LINE = "{:>8}{:>11}" + "{:>13}" * len(WATCHED)


# How many requests were answered, and the memory in MB by process.
Sample = tuple[int, Mapping[str, float]]


def growth(samples: Sequence[Sample], name: str) -> float:
    """MB for each 100,000 requests in the second half: a line through it."""
    half = samples[len(samples) // 2 :]
    counts = [count / 100_000 for count, _ in half]
    return statistics.linear_regression(counts, [held[name] for _, held in half])[0]


def requests(port: int, number: int, *, streamed: bool) -> Iterator[bytes]:
    """The requests of one connection."""
    for session in itertools.count():
        yield wire.request(
            f"127.0.0.1:{port}",
            f"soak-{number}-{session}",
            streamed=streamed,
            pace="unique",
            key="sk-any",
        )


async def soak(
    system: System, seconds: float, rate: float, tell: Callable[[str], object]
) -> None:
    """Send requests, and measure memory at times."""
    tally, every_s, numbers = Tally(), CONNECTIONS / rate, range(CONNECTIONS)
    askers = [await _connected(system.port, n, tally, every_s) for n in numbers]
    loop = asyncio.get_running_loop()
    try:
        for position, asker in enumerate(askers):
            loop.call_later(every_s * position / CONNECTIONS, asker.ask)
        samples = await _watched(system, seconds, tally, tell)
    finally:
        for asker in askers:
            asker.stop()
        await asyncio.wait([asker.over for asker in askers], timeout=5)
    grown = [f"{growth(samples, name):+.2f}" for name in WATCHED]
    tell(_LINE.format("growth", "MB/100k", *grown))


async def _watched(
    system: System, seconds: float, tally: Tally, tell: Callable[[str], object]
) -> list[Sample]:
    done = 0
    samples: list[Sample] = []
    tell(_LINE.format("minutes", "requests", *WATCHED))
    loop = asyncio.get_running_loop()
    began = loop.time()
    for turn in range(1, SAMPLES + 1):
        await asyncio.sleep(began + seconds * turn / SAMPLES - loop.time())
        if tally.error:
            raise LoadError(tally.error)
        done += len(tally.whole)
        tally.whole.clear()
        tally.first.clear()
        held = await asyncio.to_thread(system.memory_mb)
        samples.append((done, held))
        minutes = f"{(loop.time() - began) / 60:.1f}"
        tell(_LINE.format(minutes, f"{done:,}", *(f"{held[n]:.1f}" for n in WATCHED)))
    return samples


async def _connected(
    port: int, number: int, tally: Tally, every_s: float
) -> JsonAsker | StreamAsker:
    streamed = number % 2 == 1
    kind = StreamAsker if streamed else JsonAsker
    asked = requests(port, number, streamed=streamed)
    _, asker = await asyncio.get_running_loop().create_connection(
        lambda: kind(asked, tally, every_s), "127.0.0.1", port
    )
    return asker


async def run(folder: Path, minutes: float, rate: float) -> None:
    async with (
        direct(folder, core=None) as upstream,
        stack.started(folder / "up", "this", upstream) as system,
    ):
        print(f"hot path: {form()}; {rate:g} requests/s")
        await soak(system, minutes * 60, rate, lambda line: print(line, flush=True))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=500.0)
    options = parser.parse_args(arguments)
    logs.configure("soak", "warning")
    with tempfile.TemporaryDirectory(prefix="rpx-soak-") as folder:
        try:
            uvloop.run(run(Path(folder), options.minutes, options.rate))
        except LoadError as error:
            print(f"soak: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
