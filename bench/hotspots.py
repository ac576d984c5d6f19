"""Profiles the gateway under load, with py-spy if it is installed, else with cProfile,
which overstates the cost of calls."""

import asyncio
import pstats
import shutil
from collections import Counter
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

from bench.parts import load, measure
from bench.parts.cpu import family
from bench.parts.servers import NotStarted, Server, direct, gateway

TOP = 25
SECONDS = 8
RATE = 400  # samples per second
STARTING = 0.98  # a frame in this share of stacks only starts the loop
LOADS = {
    "JSON, 32 connections": load.Load(connections=32, seconds=SECONDS),
    "streams, 32 at once": load.Load(connections=32, seconds=SECONDS, streamed=True),
}


async def profile(folder: Path) -> str:
    """The most expensive functions, cumulative and own time."""
    sampler = shutil.which("py-spy")
    if sampler is None:
        return await _traced(folder)
    reports = []
    async with direct(folder) as upstream, gateway(folder, upstream) as ours:
        for title, what in LOADS.items():
            stacks = folder / "stacks"
            await _sample(sampler, ours, what, stacks)
            reports.append(f"== {title}\n{_report(stacks.read_text().splitlines())}")
    return "\n\n".join(reports)


async def _sample(sampler: str, server: Server, what: load.Load, to: Path) -> None:
    worker = family(server.parties.server[0])[-1]
    process = await asyncio.create_subprocess_exec(
        sampler, "record", "--pid", str(worker), "--duration", str(SECONDS - 1),
        "--rate", str(RATE), "--function", "--format", "raw", "--output", str(to),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await measure.sample(server, what)
        _, said = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise NotStarted(f"py-spy failed: {said.decode()[-500:]}")


def _report(stacks: Iterable[str]) -> str:
    """Parse collapsed stacks, one `frame;frame;frame count` per line."""
    own: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        path = frames.split(";")
        if not frames:
            continue  # threads without Python frames: Granian's own
        own[path[-1]] += int(count)
        for frame in set(path):
            cumulative[frame] += int(count)
    total = max(sum(own.values()), 1)
    for frame, seen in list(cumulative.items()):
        if seen > STARTING * total:
            del cumulative[frame]
    lines = []
    for title, counts in (("own", own), ("cumulative", cumulative)):
        lines.append(f"-- {title} share")
        lines.extend(
            f"{seen / total:7.1%}  {frame}" for frame, seen in counts.most_common(TOP)
        )
    return "\n".join(lines)


async def _traced(folder: Path) -> str:
    what = LOADS["JSON, 32 connections"]
    async with (
        direct(folder) as upstream,
        gateway(folder, upstream, "bench.parts.profiled") as ours,
    ):
        await measure.sample(ours, what)
    written = StringIO()
    stats = pstats.Stats(str(folder / "profile"), stream=written).strip_dirs()
    stats.sort_stats("tottime").print_stats(TOP)
    stats.sort_stats("cumulative").print_stats(TOP)
    return written.getvalue()
