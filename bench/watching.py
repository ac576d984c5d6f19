"""Measures what clients of `/admin/events` cost the gateway and the router, with 200
resources and 500 requests a second: `python -m bench.watching [seconds]`.

The gateway forwards each client's events, so its cost is measured with fifty and
divided. The router gathers and serializes once for all, so its cost is shown for one
and fifty."""

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx

from bench.parts import cpu, wire
from bench.parts.load import JsonAsker, Tally
from bench.parts.servers import (
    LOAD_CORE,
    SERVER_CORE,
    NotStarted,
    child,
    direct,
    valkey,
)
from libs.cli.commands import service_command
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process

RESOURCES = 200
PER_SECOND, CONNECTIONS = 500, 50
ROUNDS = 3
MANY = 50
TOKEN = "watching-" + "t" * 32
PATHS = {"whole states": "/admin/events", "changes": "/admin/events?changes=true"}
_LINE = "{:<34}{:>12}{:>14}{:>14}"


class _Paced(JsonAsker):
    """Asks again only when it is due."""

    def __init__(self, request: bytes, tally: Tally, due: float) -> None:
        super().__init__(itertools.repeat(request), tally)
        self._due = due  # of the loop's clock

    def wait(self) -> None:
        self._due += CONNECTIONS / PER_SECOND
        asyncio.get_running_loop().call_at(self._due, self._unless_stopped)

    def _done(self) -> None:
        self._tally.whole.append(0.0)
        self.wait()

    def _unless_stopped(self) -> None:
        if self._stopped:
            self._end()
        else:
            self.ask()


@asynccontextmanager
async def stack(folder: Path) -> AsyncIterator[tuple[int, Process, Process]]:
    """A gateway's port, the gateway and the router, beside ingest and Redis."""
    async with AsyncExitStack() as started:
        upstream = await started.enter_async_context(direct(folder))
        url, _ = await started.enter_async_context(valkey(folder, core=LOAD_CORE))
        ports = {name: free_port() for name in ("gateway", "router", "ingest")}
        environ = {
            "PROXY_REDIS_URL": url,
            "PROXY_DATA_DIR": str(folder),
            "PROXY_SQLITE_URL": f"sqlite:///{folder}/proxy.sqlite3",
            "PROXY_PORT": str(ports["gateway"]),
            "PROXY_ROUTER_PORT": str(ports["router"]),
            "PROXY_INGEST_PORT": str(ports["ingest"]),
            "PROXY_ROUTER_URL": f"http://127.0.0.1:{ports['router']}",
            "PROXY_ADMIN_TOKEN": TOKEN,
            "PROXY_MAX_CAPTURE_BYTES": "0",
            "PROXY_HEALTH_CHECK_ENABLED": "false",
            "PROXY_UPSTREAM_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1",
            "OPENAI_API_KEYS": ",".join(f"sk-{n:048}" for n in range(RESOURCES)),
        }
        processes = {}
        for name in ("ingest", "router", "gateway"):
            core = SERVER_CORE if name == "gateway" else LOAD_CORE
            processes[name] = await started.enter_async_context(
                child(folder, name, service_command(name, environ), core=core,
                      port=ports[name], environ=environ)
            )  # fmt: skip
        await _ready(ports["gateway"])
        yield ports["gateway"], processes["gateway"], processes["router"]


async def _ready(port: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(600):
            answer = await client.get(f"http://127.0.0.1:{port}/readyz")
            if answer.json().get("resources") == RESOURCES:
                return
            await asyncio.sleep(0.05)
    raise NotStarted(f"the gateway is not ready: {answer.text}")


@asynccontextmanager
async def load(port: int) -> AsyncIterator[Tally]:
    tally, askers = Tally(), []
    loop = asyncio.get_running_loop()
    request = _without(wire.request(f"127.0.0.1:{port}", ""), b"session-id", b"author")
    for n in range(CONNECTIONS):
        due = loop.time() + n / PER_SECOND
        _, asker = await loop.create_connection(
            partial(_Paced, request, tally, due), "127.0.0.1", port
        )
        asker.wait()
        askers.append(asker)
    yield tally
    for asker in askers:
        asker.stop()
    await asyncio.gather(*(asker.over for asker in askers))


def _without(request: bytes, *headers: bytes) -> bytes:
    """Without a session, requests are spread over all resources."""
    head, body = request.split(wire.HEAD_END, 1)
    lines = [x for x in head.split(b"\r\n") if not x.startswith(headers)]
    return b"\r\n".join(lines) + wire.HEAD_END + body


async def _watch(port: int, path: str, read: list[int]) -> None:
    head = (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"authorization: Bearer {TOKEN}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode())
        while data := await reader.read(1 << 20):
            read[0] += len(data)
    finally:
        writer.close()


async def sample(
    port: int, parties: dict[str, Process], path: str, clients: int, seconds: float
) -> dict[str, float]:
    """CPU in percent of a core, and KB a second that one client got."""
    read = [0]
    watching = [asyncio.create_task(_watch(port, path, read)) for _ in range(clients)]
    await asyncio.sleep(2.0)  # past the first event, which is whole
    read[0] = 0
    before = {name: cpu.cpu_s(cpu.family(p.pid)) for name, p in parties.items()}
    await asyncio.sleep(seconds)
    used = {
        name: (cpu.cpu_s(cpu.family(p.pid)) - before[name]) / seconds * 100
        for name, p in parties.items()
    }
    used["kb"] = read[0] / seconds / 1000 / max(clients, 1)
    for each in watching:
        each.cancel()
    await asyncio.gather(*watching, return_exceptions=True)
    return used


async def measure(folder: Path, seconds: float) -> str:
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    async with stack(folder) as (port, gateway, router), load(port) as tally:
        parties = {"gateway": gateway, "router": router}
        await asyncio.sleep(3.0)
        before = len(tally.whole)
        for _ in range(ROUNDS):
            for name, path in PATHS.items():
                for clients in (0, 1, MANY):
                    one = await sample(port, parties, path, clients, seconds)
                    found.setdefault((name, clients), []).append(one)
        phases = ROUNDS * len(PATHS) * 3
        rate = (len(tally.whole) - before) / (phases * (seconds + 2.0))
        if tally.error:
            raise NotStarted(tally.error)
    return rendered(found, rate)


def rendered(found: dict[tuple[str, int], list[dict[str, float]]], rate: float) -> str:
    lines = [
        f"{RESOURCES} resources, {rate:.0f} requests/s; CPU in percent of a core",
        _LINE.format("", "gateway", "router", "KB/s a client"),
    ]
    middle = {
        key: {name: statistics.median(s[name] for s in samples) for name in samples[0]}
        for key, samples in found.items()
    }
    for (name, clients), used in middle.items():
        title = f"{name}, clients: {clients}"
        cells = (f"{used[k]:.2f}" for k in ("gateway", "router"))
        lines.append(_LINE.format(title, *cells, f"{used['kb']:.0f}"))
    for name in PATHS:
        none, many = middle[name, 0], middle[name, MANY]
        one = (many["gateway"] - none["gateway"]) / MANY
        share = one / none["gateway"]
        lines.append(f"one client of {name}: {one:.3f} % of a core, {share:.1%} of the "
                     "gateway's CPU")  # fmt: skip
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.watching")
    parser.add_argument("seconds", nargs="?", type=float, default=6.0)
    chosen = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-watching-") as folder:
        print(asyncio.run(measure(Path(folder), chosen.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
