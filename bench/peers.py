"""The gateway beside other routers, core for core: `make bench ARGS=--peers`.

One run, one table: nginx as a plain proxy, vllm-router and sglang-router where they are
installed (`bench.parts.peers`), and gateways of this code, interpreted and compiled,
with and without captured bodies. All take turns in each round. After `make compile`
both forms are measured, else the interpreted one only."""

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.parts import forms, measure, peers
from bench.parts.servers import check, direct, proxied_by_nginx
from libs.common.runtime.compiled import form
from tests.support.processes.processes import ROOT


async def compare(folder: Path) -> str:
    """The table of all servers."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(direct(folder))
        nginx = await stack.enter_async_context(proxied_by_nginx(folder, upstream))
        others = [
            await stack.enter_async_context(peers.started(name, at, folder, upstream))
            for name, at in installed().items()
        ]
        checkouts = {"interpreted": ROOT}
        if form() == "compiled":
            copy = forms.interpreted(folder / "copy")
            checkouts = {"interpreted": copy, "compiled": ROOT}
        else:
            print("compiled: left out, this checkout is not (make compile)")
        ours = [
            await stack.enter_async_context(each)
            for each in forms.gateways(folder, upstream, checkouts, sys.executable)
        ]
        servers = (upstream, nginx, *others, *ours)
        for server in servers:
            await check(server)
        return forms.table(await measure.measure(servers))


def installed() -> Mapping[str, str]:
    """The peers' programs; says which are missing."""
    found = {name: peers.find(name) for name in peers.COMMANDS}
    for name, program in found.items():
        if program is None:
            print(f"{name}: left out, it is not installed")
    return {name: program for name, program in found.items() if program}
