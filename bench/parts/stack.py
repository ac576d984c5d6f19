"""Starts the whole system as users do, with `responses-proxy up`, and tells its
processes apart."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.parts import cpu
from bench.parts.servers import Server
from tests.support.databases.postgres import Server as Postgres
from tests.support.processes.processes import ROOT
from tests.support.processes.up import environment, running

# What a command line contains, by the name in the table. Commands of older versions
# differ in what runs the router.
PARTS = {
    "gateway": "services.gateway",
    "ingest": "services.ingest",
    "router": "services.router",
    "health": "services.health",
    "redis": "valkey-server",
}
SUPERVISION, POSTGRES = "supervision", "postgres"
NAMES = ("gateway", "redis", "ingest", POSTGRES, "router", "health", SUPERVISION)
KEYS = 4


@dataclass(frozen=True, slots=True)
class System:
    """A running system."""

    name: str
    port: int
    pid: int  # of supervisord
    postgres: int | None = None  # of the server's first process

    def used_s(self) -> dict[str, float]:
        """CPU seconds by process so far."""
        used = dict.fromkeys(NAMES, 0.0)
        for pid in cpu.family(self.pid):
            if (seconds := _cpu_s(pid)) is not None:
                used[_name_of(pid)] += seconds
        if self.postgres is not None:
            # A connection's process may have ended since; its parent adds it up.
            ended = cpu.ended_children_s(self.postgres)
            live = (_cpu_s(pid) or 0.0 for pid in cpu.family(self.postgres))
            used[POSTGRES] = ended + sum(live)
        return used

    def memory_mb(self) -> dict[str, float]:
        """Memory by process, without that of files."""
        held = dict.fromkeys(NAMES, 0.0)
        for pid in cpu.family(self.pid):
            held[_name_of(pid)] += _memory_mb(pid)
        return held


def _memory_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0  # it has ended since it was listed
    sizes = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
    return int(next(sizes, "0")) / 1024


def _cpu_s(pid: int) -> float | None:
    try:
        return cpu.cpu_s((pid,))
    except (OSError, IndexError):
        return None  # it has ended since it was listed


def _name_of(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return SUPERVISION
    return next((n for n, part in PARTS.items() if part in command), SUPERVISION)


@asynccontextmanager
async def started(
    folder: Path,
    name: str,
    upstream: Server,
    database: Postgres | None = None,
    checkout: Path | None = None,
) -> AsyncIterator[System]:
    """Start a system; yields once it serves. `database`: a Postgres server of its own;
    SQLite without one. `checkout`: run the code of another checkout."""
    await asyncio.to_thread(folder.mkdir)
    environ = environment(folder, **_settings(upstream, database))
    command = (str((checkout or ROOT) / ".venv/bin/responses-proxy"), "up")
    with running(environ, folder, command) as up:
        await asyncio.to_thread(up.wait_until_ready)
        pid = None if database is None else database.pid
        yield System(name, int(environ["PROXY_PORT"]), up.process.pid, pid)


def _settings(upstream: Server, database: Postgres | None) -> Mapping[str, str]:
    settings = {
        "PROXY_UPSTREAM_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1",
        # As long as real keys: answers are searched for them.
        "OPENAI_API_KEYS": ",".join(f"sk-proj-bench-{n:040}" for n in range(KEYS)),
    }
    if database is not None:
        settings["PROXY_DATABASE_URL"] = f"{database.url}/postgres"
    return settings
