"""Counts the instructions of the gateway for a request, without the kernel:
`python -m bench.instructions [CHECKOUT...]`, a minute for each. Needs valgrind.

What else the machine does matters little: runs differ by a hundredth."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import uvloop

from bench.parts.callgrind import Counted, per_request, under
from bench.parts.load import Load
from bench.parts.servers import LOAD_CORE, direct, gateway
from libs.common.runtime import logs

LOADS = {
    "JSON": (Load(connections=8, seconds=0), 1_600),
    "streams": (Load(connections=8, seconds=0, streamed=True), 240),
}


async def count(folder: Path, checkout: Path | None) -> dict[str, float]:
    """Instructions for each request, by kind."""
    out = folder / "counts"
    async with (
        direct(folder) as upstream,
        gateway(
            folder,
            upstream,
            settings={"PYTHONHASHSEED": "0"},
            checkout=checkout,
            under=under(out),
        ) as server,
    ):
        counted = [Counted(server.parties.server, out)]
        return {
            name: (await per_request(server, counted, what, answers))[0]
            for name, (what, answers) in LOADS.items()
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions")
    parser.add_argument("checkouts", type=Path, nargs="*", default=[Path()])
    chosen = parser.parse_args()
    logs.configure("bench", "error")
    os.sched_setaffinity(0, {LOAD_CORE})
    for checkout in chosen.checkouts:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            found = uvloop.run(count(Path(folder), checkout.resolve()))
        counts = ", ".join(f"{name} {number:,.0f}" for name, number in found.items())
        print(f"{checkout}: {counts}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
