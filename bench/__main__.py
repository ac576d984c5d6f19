"""`python -m bench [--profile | --peers | --pythons]`: one run, one table."""

import argparse
import asyncio
import contextlib
import os
import platform
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from functools import partial
from pathlib import Path

import uvloop

from bench import hotspots, idle, peers, pythons, routing, workers
from bench.parts import measure, table, telemetry
from bench.parts.load import LoadError
from bench.parts.servers import (
    LOAD_CORE,
    SERVER_CORE,
    NotStarted,
    check,
    direct,
    gateway,
    proxied_by_nginx,
)
from libs.common.runtime import logs

LONGEST_S = 900  # a longer run is treated as hanging


async def compare(folder: Path) -> str:
    """The table of all measurements."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(direct(folder))
        nginx = await stack.enter_async_context(proxied_by_nginx(folder, upstream))
        ours = await stack.enter_async_context(gateway(folder, upstream))
        for server in (upstream, nginx, ours):
            await check(server)
        measured = await measure.measure((upstream, nginx, ours))
        # Last, because the connections it opens and closes would disturb the others.
        still = {server.name: await idle.measure(server) for server in (nginx, ours)}
    two = await workers.gain(folder)
    ledger = await telemetry.cost(folder)
    costs = await routing.measure(folder)
    shown = table.render(table.Found(measured, still, two, ledger, costs))
    rate = await separate("bench.ingest_rate", "compare")
    whole = await separate("bench.system", "--rounds", "2", "--seconds", "6")
    return f"{shown}\n\n{rate}\n\n{whole}"


async def separate(module: str, *arguments: str) -> str:
    """A section that is measured by a process of its own with its own servers, on both
    cores: it would inherit only ours."""
    pinned = ["taskset", "-c", f"{SERVER_CORE},{LOAD_CORE}"]
    command = [*pinned, sys.executable, "-m", module, *arguments]
    measuring = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        shown, _ = await measuring.communicate()
    finally:
        if measuring.returncode is None:
            measuring.terminate()
    if measuring.returncode:
        raise LoadError(f"{module} could not measure")
    return shown.decode().rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    add = partial(parser.add_argument, dest="work", action="store_const")
    add("--profile", const=hotspots.profile, help="where the time goes")
    add("--peers", const=peers.compare, help="other routers beside this gateway")
    add("--pythons", const=pythons.compare, help="this gateway on several Pythons")
    parser.set_defaults(work=compare)
    chosen = parser.parse_args()
    logs.configure("bench", "error")
    os.sched_setaffinity(0, {LOAD_CORE})
    print(
        f"Server under test on core {SERVER_CORE}; load, upstream and valkey on core "
        f"{LOAD_CORE}.\nMedians of {measure.ROUNDS} interleaved rounds; Python "
        f"{platform.python_version()}."
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            bounded = asyncio.wait_for(chosen.work(Path(folder)), LONGEST_S)
            print(uvloop.run(bounded))
        except (LoadError, NotStarted) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        except TimeoutError:
            print(f"bench: not finished after {LONGEST_S} s", file=sys.stderr)
            return 1
    print(f"Took {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
