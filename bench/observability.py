"""Measures what metrics, logs and traces cost: `python -m bench.observability` counts
the instructions that a gateway executes for a request, without the kernel's.

First what is called for a request that ended is counted alone, which repeats exactly.
Then gateways run at the same time under valgrind and take turns: their counts vary by
one to three percent, with how answers come in pieces. What is on by default is compared
with the same gateway when it forgets what it counts; `--default` does only that."""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from bench.parts import load
from bench.parts.callgrind import Counted, per_request, under
from bench.parts.observed import OFF, ON
from bench.parts.servers import LOAD_CORE, Server, direct, gateway
from libs.common.runtime import logs
from tests.support.processes.processes import ROOT
from tests.support.upstreams.collector import collecting

# Rounds, and answers of each load; a request takes some 15 ms under valgrind.
ALL = 3, 200
DEFAULT = 5, 400
LONGEST_S = 1500
LOADS = {
    "JSON": load.Load(connections=8, seconds=0),
    "streams": load.Load(connections=8, seconds=0, streamed=True),
}
# What the others are compared with: the first gateway, which forgets what it counts.
NOTHING = "nothing"
# What is on, by name.
GATEWAYS: dict[str, dict[str, str]] = {
    "metrics and event log (default)": {},
    "the same and access log": {"PROXY_ACCESS_LOG": "true"},
    "the same and traces": {},
    "traces, none sampled": {"OTEL_TRACES_SAMPLER": "always_off"},
}

# What `bench.parts.recording` calls.
RECORDING = {
    "metrics of a JSON request": "json",
    "metrics of a stream": "stream",
    "a line of the access log": "access log",
}
CALLS = 2_000

Counts = dict[str, list[float]]


def recording() -> dict[str, float]:
    """Instructions for each call: of many calls, less those of fewer."""
    return {
        name: (_executed(what, 2 * CALLS) - _executed(what, CALLS)) / CALLS
        for name, what in RECORDING.items()
    }


def _executed(what: str, count: int) -> int:
    command = [
        *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
        *(sys.executable, "-m", "bench.parts.recording", what, str(count)),
    ]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    (line,) = [line for line in done.stderr.splitlines() if "Collected : " in line]
    return int(line.split()[-1])


async def compare(
    folder: Path, gateways: dict[str, dict[str, str]], rounds: int, answers: int
) -> str:
    """A table of instructions for a request, and ratios."""
    counts: dict[str, Counts] = {name: {} for name in LOADS}
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(collecting())
        upstream = await stack.enter_async_context(direct(folder))
        counted: dict[str, tuple[Server, Counted]] = {}
        for number, (name, more) in enumerate(gateways.items()):
            place = folder / f"gateway-{number}"
            place.mkdir()
            out = place / "callgrind"
            settings = {"PROXY_HEARTBEAT_SECONDS": "60", "PYTHONHASHSEED": "0", **more}
            if "traces" in name:
                settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
            made = gateway(
                place,
                upstream,
                "bench.parts.observed",
                settings=settings,
                under=under(out),
            )
            server = await stack.enter_async_context(made)
            counted[name] = server, Counted(server.parties.server, out)
            counted.setdefault(NOTHING, counted[name])
        names = list(counted)
        for turn in range(rounds):
            for title, what in LOADS.items():
                # Another one first in each round.
                for name in (*names[turn % len(names) :], *names[: turn % len(names)]):
                    server, each = counted[name]
                    os.kill(each.pid, OFF if name == NOTHING else ON)
                    found = await per_request(server, [each], what, answers)
                    counts[title].setdefault(name, []).extend(found)
    return "\n".join(_table(counts))


def _table(counts: dict[str, Counts]) -> list[str]:
    lines = [f"{'instructions for each request':<36}{'':>12}{'':>8}   (rounds)"]
    for title, by_gateway in counts.items():
        lines.append(title)
        base = statistics.median(by_gateway[NOTHING])
        for name, found in sorted(
            by_gateway.items(), key=lambda each: each[0] != NOTHING
        ):
            middle = statistics.median(found)
            low, high = min(found) / base, max(found) / base
            lines.append(
                f"  {name:<34}{middle:>12,.0f}{middle / base:>8.3f}"
                f"   ({low:.3f} to {high:.3f})"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.observability")
    parser.add_argument(
        "--default", action="store_true", help="only what is on by default, exactly"
    )
    default = parser.parse_args().default
    first = dict([next(iter(GATEWAYS.items()))])
    asked = (first, *DEFAULT) if default else (GATEWAYS, *ALL)
    logs.configure("bench", "error")
    os.sched_setaffinity(0, {LOAD_CORE})
    print("instructions for each call")
    for name, count in recording().items():
        print(f"  {name:<34}{count:>12,.0f}", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = asyncio.wait_for(compare(Path(folder), *asked), LONGEST_S)
        print(uvloop.run(work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
