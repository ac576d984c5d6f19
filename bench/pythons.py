"""The gateway on several Pythons: `make bench ARGS=--pythons`.

`BENCH_PYTHONS` names them as `name=path`, with commas between: the path is a program
that behaves as `python` and has the packages (`make test-python` makes one). One run,
one table: nginx as a plain proxy, and for this Python and each of those a gateway of
this code interpreted and compiled, with and without captured bodies. All take turns in
each round. The compiled ones are there if this checkout was compiled with that Python;
its products lie beside those of others."""

import asyncio
import contextlib
import os
import platform
import sys
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from pathlib import Path

from bench.parts import forms, measure
from bench.parts.servers import (
    NotStarted,
    Server,
    check,
    direct,
    proxied_by_nginx,
)
from tests.support.processes.processes import ROOT

# Two measurements, because there are many servers.
PLAN = {name: measure.PLAN[name] for name in ("json", "streams")}
_ASK = """
import platform
from libs.common.runtime.compiled import form
print(platform.python_version(), form())
"""


async def compare(folder: Path) -> str:
    """The table of all servers."""
    copy = forms.interpreted(folder / "copy")
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(direct(folder))
        nginx = await stack.enter_async_context(proxied_by_nginx(folder, upstream))
        ours: list[Server] = []
        for name, python in pythons(os.environ.get("BENCH_PYTHONS", "")).items():
            checkouts = {"interpreted": copy}
            version, form = await asked(python)
            if form == "compiled":
                checkouts["compiled"] = ROOT
                print(f"{name}: Python {version}")
            else:
                print(
                    f"{name}: Python {version}, for which this checkout is not compiled"
                )
            ours += [
                await stack.enter_async_context(each)
                for each in forms.gateways(folder, upstream, checkouts, python, name)
            ]
        servers = (upstream, nginx, *ours)
        for server in servers:
            await check(server)
        return forms.table(await measure.measure(servers, PLAN))


def pythons(named: str) -> Mapping[str, str]:
    """This Python and those of `BENCH_PYTHONS`, by name."""
    found = {platform.python_version().rpartition(".")[0]: sys.executable}
    for each in filter(None, named.split(",")):
        name, equals, path = each.strip().partition("=")
        if not equals or name in found:
            raise NotStarted(f"BENCH_PYTHONS: not name=path, or a second one: {each!r}")
        found[name] = str(Path(path).absolute())
    return found


async def asked(python: str) -> tuple[str, str]:
    """The version of an interpreter, and the form in which it would run this
    checkout."""
    asking = await asyncio.create_subprocess_exec(
        python, "-c", _ASK, cwd=ROOT, stdout=PIPE, stderr=PIPE
    )
    said, complaint = await asking.communicate()
    if asking.returncode:
        raise NotStarted(f"{python}: {complaint.decode()[-300:]}")
    version, form = said.decode().split()
    return version, form
