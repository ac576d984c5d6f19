"""`python -m bench [--profile]`: one run, one table."""

import argparse
import asyncio
import contextlib
import os
import platform
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import httpx
import uvloop

from bench import hotspots, idle, routing, workers
from bench.parts import measure, table, telemetry, wire
from bench.parts.load import LoadError
from bench.parts.servers import (
    LOAD_CORE,
    SERVER_CORE,
    NotStarted,
    Server,
    direct,
    gateway,
    proxied_by_nginx,
)
from libs.common.runtime import logs

LONGEST_S = 720  # a longer run is treated as hanging


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


async def check(server: Server) -> None:
    """Check that the server passes answers on unchanged."""
    async with httpx.AsyncClient(trust_env=False) as client:
        for streamed in (False, True):
            raw = wire.request("bench", "check", streamed=streamed)
            answer = await client.post(
                f"http://127.0.0.1:{server.port}/v1/responses",
                content=raw.partition(wire.HEAD_END)[2],
                headers={
                    "content-type": "application/json",
                    "authorization": f"Bearer {wire.KEY}",
                },
            )
            events = b"".join(wire.stream_events())
            if answer.content != (events if streamed else wire.answer_body()):
                raise LoadError(f"{server.name} answered {answer.text[:300]!r}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--profile", action="store_true", help="where the time goes")
    chosen = parser.parse_args()
    logs.configure("bench", "error")
    os.sched_setaffinity(0, {LOAD_CORE})
    print(
        f"Server under test on core {SERVER_CORE}; load, upstream and valkey on core "
        f"{LOAD_CORE}.\nMedians of {measure.ROUNDS} interleaved rounds; Python "
        f"{platform.python_version()}."
    )
    began = time.monotonic()
    work = hotspots.profile if chosen.profile else compare
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            bounded = asyncio.wait_for(work(Path(folder)), LONGEST_S)
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
