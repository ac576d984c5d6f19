"""Gateways of this code as they are compared with other servers: interpreted and
compiled, with and without captured bodies; and the table of what each server takes."""

import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from bench.parts.measure import Figures
from bench.parts.servers import NotStarted, Server, gateway
from bench.parts.telemetry import NO_BODIES
from tests.support.processes.processes import ROOT

MADE_BY_COMPILING = ("*.so", "compiled*.json", "__pycache__")
Measured = Mapping[str, Mapping[str, Figures]]
_NAME = "{:<29}"
_CPU = "{:>9}{:>7}{:>9}{:>7}"
_TIMES = "{:>8}{:>8}{:>8}{:>8}"


def interpreted(copy: Path) -> Path:
    """A copy of this checkout without what `make compile` made."""
    left_out = shutil.ignore_patterns(*MADE_BY_COMPILING)
    for part in ("libs", "services"):
        shutil.copytree(ROOT / part, copy / part, ignore=left_out)
    return copy


def gateways(
    folder: Path,
    upstream: Server,
    forms: Mapping[str, Path],
    python: str,
    version: str = "",
) -> Iterator[AbstractAsyncContextManager[Server]]:
    """Those of one Python: each of its forms, which have a checkout each, with and
    without captured bodies. `version` precedes their names."""
    for form, checkout in forms.items():
        for bodies, settings in (("bodies", {}), ("no bodies", NO_BODIES)):
            place = folder / f"{version} {form}, {bodies}".strip()
            place.mkdir()
            ours = gateway(
                place, upstream, settings=settings, checkout=checkout, python=python
            )
            yield _in_form(form, place.name, ours)


@asynccontextmanager
async def _in_form(
    form: str, name: str, started: AbstractAsyncContextManager[Server]
) -> AsyncIterator[Server]:
    """The gateway under this name, if it runs in this form."""
    async with started as ours:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{ours.port}/readyz")
        if answer.json()["hot_path"] != form:
            raise NotStarted(f"{name} runs {answer.json()['hot_path']}")
        yield replace(ours, name=name)


def table(measured: Measured) -> str:
    """A line for each server, with the latencies if they were measured. Ratios are to
    nginx, and CPU of `direct` is that of the upstream itself."""
    head = [
        _CPU.format("CPU-ms", "÷", "CPU-ms", "÷"),
        _CPU.format("JSON", "nginx", "stream", "nginx"),
    ]
    timed = "alone" in measured
    if timed:
        head[0] += _TIMES.format(*["added"] * 2, *["first"] * 2)
        head[1] += _TIMES.format("p50 µs", "p99 µs", "p50 ms", "p99 ms")
    lines = [_NAME.format("") + text for text in head]
    for name in measured["json"]:
        lines.append(_NAME.format(name) + _cpu(measured, name))
        if timed:
            lines[-1] += _times(measured, name)
    return "\n".join([*lines, "", others_took(measured)])


def _cpu(measured: Measured, name: str) -> str:
    json, streams = measured["json"], measured["streams"]
    return _CPU.format(
        f"{json[name]['cpu']:.4f}",
        f"{json[name]['cpu'] / json['nginx']['cpu']:.2f}",
        f"{streams[name]['cpu']:.4f}",
        f"{streams[name]['cpu'] / streams['nginx']['cpu']:.2f}",
    )


def _times(measured: Measured, name: str) -> str:
    direct = measured["alone"]["direct"]
    alone, paced = measured["alone"][name], measured["paced"][name]
    return _TIMES.format(
        *(f"{alone[key] - direct[key]:,.0f}" for key in ("p50", "p99")),
        *(f"{paced[key] / 1000:,.1f}" for key in ("p50", "p99")),
    )


def others_took(measured: Measured) -> str:
    """How quiet the machine was."""
    busy = [f.get("others busy", 0) for by in measured.values() for f in by.values()]
    return f"Other processes took up to {max(busy):.0%} of a core."
