"""The gateway beside other routers, core for core: `make bench ARGS=--peers`.

One run, one table: nginx as a plain proxy, vllm-router and sglang-router where they are
installed (`bench.parts.peers`), and gateways of this code, interpreted and compiled,
with and without captured bodies. All take turns in each round. After `make compile`
both forms are measured, else the interpreted one only."""

import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import httpx

from bench.parts import measure, peers
from bench.parts.measure import Figures
from bench.parts.servers import (
    NotStarted,
    Server,
    check,
    direct,
    gateway,
    proxied_by_nginx,
)
from bench.parts.telemetry import NO_BODIES
from libs.common.runtime.compiled import form
from tests.support.processes.processes import ROOT

MADE_BY_COMPILING = ("*.so", "compiled.json", "__pycache__")
Measured = Mapping[str, Mapping[str, Figures]]
_LINE = "{:<25}{:>9}{:>7}{:>9}{:>7}{:>8}{:>8}{:>8}{:>8}"


def interpreted(copy: Path) -> Path:
    """A copy of this checkout without what `make compile` made."""
    left_out = shutil.ignore_patterns(*MADE_BY_COMPILING)
    for part in ("libs", "services"):
        shutil.copytree(ROOT / part, copy / part, ignore=left_out)
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


async def compare(folder: Path) -> str:
    """The table of all servers."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(direct(folder))
        nginx = await stack.enter_async_context(proxied_by_nginx(folder, upstream))
        others = [
            await stack.enter_async_context(peers.started(name, at, folder, upstream))
            for name, at in installed().items()
        ]
        ours = [
            await stack.enter_async_context(each) for each in gateways(folder, upstream)
        ]
        servers = (upstream, nginx, *others, *ours)
        for server in servers:
            await check(server)
        return table(await measure.measure(servers))


def installed() -> Mapping[str, str]:
    """The peers' programs; says which are missing."""
    found = {name: peers.find(name) for name in peers.COMMANDS}
    for name, program in found.items():
        if program is None:
            print(f"{name}: left out, it is not installed")
    return {name: program for name, program in found.items() if program}


def gateways(
    folder: Path, upstream: Server
) -> Iterator[contextlib.AbstractAsyncContextManager[Server]]:
    """Each form, with and without captured bodies."""
    forms: dict[str, Path | None] = {"interpreted": None}
    if form() == "compiled":
        forms = {"interpreted": interpreted(folder / "copy"), "compiled": None}
    else:
        print("compiled: left out, this checkout is not (make compile)")
    for which, checkout in forms.items():
        for bodies, settings in (("bodies", {}), ("no bodies", NO_BODIES)):
            place = folder / f"{which}, {bodies}"
            place.mkdir()
            yield _gateway(which, place, upstream, settings, checkout)


@contextlib.asynccontextmanager
async def _gateway(
    which: str,
    place: Path,
    upstream: Server,
    settings: Mapping[str, str],
    checkout: Path | None,
) -> AsyncIterator[Server]:
    """One gateway of this form, named as its folder."""
    async with gateway(place, upstream, settings=settings, checkout=checkout) as ours:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{ours.port}/readyz")
        if answer.json()["hot_path"] != which:
            raise NotStarted(f"{place.name} runs {answer.json()['hot_path']}")
        yield replace(ours, name=place.name)


def table(measured: Measured) -> str:
    """A line for each server. Ratios are to nginx, and CPU of `direct` is that of the
    upstream itself."""
    lines = [
        _LINE.format("", "CPU-ms", "÷", "CPU-ms", "÷", *["added"] * 2, *["first"] * 2),
        _LINE.format("", "JSON", "nginx", "stream", "nginx",
                     "p50 µs", "p99 µs", "p50 ms", "p99 ms"),
    ]  # fmt: skip
    json, streams = measured["json"], measured["streams"]
    direct = measured["alone"]["direct"]
    for name in json:
        alone, paced = measured["alone"][name], measured["paced"][name]
        lines.append(
            _LINE.format(
                name,
                f"{json[name]['cpu']:.4f}",
                f"{json[name]['cpu'] / json['nginx']['cpu']:.2f}",
                f"{streams[name]['cpu']:.4f}",
                f"{streams[name]['cpu'] / streams['nginx']['cpu']:.2f}",
                *(f"{alone[key] - direct[key]:,.0f}" for key in ("p50", "p99")),
                *(f"{paced[key] / 1000:,.1f}" for key in ("p50", "p99")),
            )
        )
    return "\n".join([*lines, "", others_took(measured)])


def others_took(measured: Measured) -> str:
    """How quiet the machine was."""
    busy = [f.get("others busy", 0) for by in measured.values() for f in by.values()]
    return f"Other processes took up to {max(busy):.0%} of a core."
