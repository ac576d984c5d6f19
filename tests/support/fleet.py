"""Several gateways and the other services, each a process of its own, before one
simulated upstream in the test's process."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from libs.cli.commands import service_command
from libs.simulator.server import RunningSimulator
from tests.support.processes import Process, wait_for
from tests.support.valkey import free_port
from tests.support.waiting import eventually

PORTS = {
    "gateway": "PROXY_PORT",
    "router": "PROXY_ROUTER_PORT",
    "health": "PROXY_HEALTH_PORT",
    "ingest": "PROXY_INGEST_PORT",
}
HOST = "http://127.0.0.1"


@dataclass(frozen=True)
class Plan:
    """Which processes, and how they are configured."""

    keys: Mapping[str, str]  # upstream key -> its account
    gateways: int
    services: Sequence[str] = ("router",)
    settings: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Member:
    """One running process of the product."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        """A gateway's address, with /v1."""
        return f"{HOST}:{self.port}/v1"


@dataclass(frozen=True)
class Fleet:
    """What runs. Resources are named as `openai-N`, in the order of the keys."""

    simulator: RunningSimulator
    keys: Mapping[str, str]
    gateways: Sequence[Member]
    router: Member
    database: str  # its URL

    @property
    def admin(self) -> str:
        """The admin API's address."""
        return f"{HOST}:{self.router.port}/admin"

    def resource(self, key: str) -> str:
        """The name the product gives an upstream key."""
        return f"openai-{list(self.keys).index(key) + 1}"

    async def state(self) -> dict[str, Any]:
        """The admin API's view: resources, ledger, queue."""
        async with httpx.AsyncClient(timeout=10) as client:
            answer = await client.get(f"{self.admin}/state")
        answer.raise_for_status()
        shown: dict[str, Any] = answer.json()
        return shown

    async def in_flight(self) -> dict[str, int]:
        """Requests in flight by resource; only those that have some."""
        resources = (await self.state())["resources"]
        return {r["id"]: r["in_flight"] for r in resources if r["in_flight"]}

    async def settled(self) -> bool:
        """Nothing in flight, nothing waiting to be stored."""
        state = await self.state()
        return (state["queue_depth"], state["ledger"]["in_flight"]) == (0, 0)


@asynccontextmanager
async def running_fleet(
    plan: Plan, simulator: RunningSimulator, redis_url: str, folder: Path
) -> AsyncIterator[Fleet]:
    """All of the plan's processes, ready; ended with the context."""
    common = {
        "PROXY_REDIS_URL": redis_url,
        "PROXY_SQLITE_URL": f"sqlite:///{folder / 'proxy.sqlite3'}",
        "PROXY_UPSTREAM_BASE_URL": simulator.base_url,
        "PROXY_DATA_DIR": str(folder),
        "OPENAI_API_KEYS": ",".join(plan.keys),
        "OPENAI_RESOURCE_ACCOUNT_IDS": ",".join(plan.keys.values()),
        **{PORTS[name]: str(free_port()) for name in plan.services},
        **(plan.settings or {}),
    }
    names = [*plan.services, *("gateway" for _ in range(plan.gateways))]
    async with AsyncExitStack() as stack:
        members = []
        for number, name in enumerate(names):
            members.append(_start(name, common, folder / f"{name}-{number}.log"))
            stack.push_async_callback(_end, members[-1].process)
        for member in members:
            await _ready(member)
        router = members[names.index("router")]
        gateways = members[len(plan.services) :]
        database = common["PROXY_SQLITE_URL"]
        fleet = Fleet(simulator, plan.keys, gateways, router, database)
        await eventually(lambda: _all_know(gateways, len(plan.keys)), within_s=20)
        yield fleet


def _start(name: str, common: Mapping[str, str], log: Path) -> Member:
    env = dict(common)
    env.setdefault(PORTS[name], str(free_port()))
    command = service_command(name, env, drain_seconds=2)
    return Member(Process(command, env, log), int(env[PORTS[name]]))


async def _ready(member: Member) -> None:
    # In a thread: this loop serves the upstream, which health checks probe.
    url = f"{HOST}:{member.port}/healthz"
    await asyncio.to_thread(wait_for, member.process, url)


async def _end(process: Process) -> None:
    if process.alive:
        await asyncio.to_thread(process.end)


async def _all_know(gateways: Sequence[Member], resources: int) -> bool:
    """Every gateway has read the whole catalogue."""
    async with httpx.AsyncClient(timeout=10) as client:
        for gateway in gateways:
            answer = await client.get(f"{HOST}:{gateway.port}/readyz")
            if answer.status_code != 200 or answer.json()["resources"] != resources:
                return False
    return True
