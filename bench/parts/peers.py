"""Routers of others, for comparison, where they are installed: on the PATH, or in the
folder BENCH_PEERS. Each knows one upstream, takes turns, and logs no requests."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from bench.parts import cpu, wire
from bench.parts.servers import SERVER_CORE, START_S, NotStarted, Server, child
from tests.support.processes.ports import free_port

_COMMON = ("--host", "127.0.0.1", "--policy", "round_robin")


def _vllm(program: str, port: int, metrics: int, upstream: str) -> list[str]:
    return [
        program, *_COMMON, "--port", str(port), "--worker-urls", upstream,
        "--prometheus-port", str(metrics), "--log-level", "warning",
    ]  # fmt: skip


def _sglang(program: str, port: int, metrics: int, upstream: str) -> list[str]:
    return [
        program, "launch", *_COMMON, "--port", str(port), "--worker-urls", upstream,
        "--prometheus-port", str(metrics), "--log-level", "warn",
    ]  # fmt: skip


COMMANDS: dict[str, Callable[[str, int, int, str], list[str]]] = {
    "vllm-router": _vllm,
    "sglang-router": _sglang,
}


def find(name: str) -> str | None:
    """The path of a peer's program."""
    folder = os.environ.get("BENCH_PEERS")
    return shutil.which(name, path=folder) or shutil.which(name)


@asynccontextmanager
async def started(
    name: str, program: str, folder: Path, upstream: Server
) -> AsyncIterator[Server]:
    """A peer on the core of servers, once it answers requests."""
    port, metrics = free_port(), free_port()
    target = f"http://127.0.0.1:{upstream.port}"
    command = COMMANDS[name](program, port, metrics, target)
    async with child(folder, name, command, core=SERVER_CORE, port=port) as process:
        await _answering(name, port)
        pids = tuple(cpu.family(process.pid))
        yield Server(name, port, cpu.Parties(pids, upstream.parties.server))


async def _answering(name: str, port: int) -> None:
    """Return once a request gets through: the peer listens before it has asked its
    upstream whether it is well."""
    body = wire.request("bench", "ready").partition(wire.HEAD_END)[2]
    kind = {"content-type": "application/json"}
    url = f"http://127.0.0.1:{port}/v1/responses"
    deadline = asyncio.get_running_loop().time() + START_S
    async with httpx.AsyncClient(trust_env=False) as client:
        while asyncio.get_running_loop().time() < deadline:
            answer = await client.post(url, content=body, headers=kind)
            if answer.status_code == 200:
                return
            await asyncio.sleep(0.1)
    raise NotStarted(f"{name} answers {answer.status_code}: {answer.text[:300]}")
