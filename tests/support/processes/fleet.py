"""Several gateways and the other services, each in its own process, in front of a
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
from tests.support.processes.ports import free_port
from tests.support.processes.processes import GUARD_S, Process, wait_for
from tests.support.processes.waiting import eventually

PORTS = {
    "gateway": "PROXY_PORT",
    "router": "PROXY_ROUTER_PORT",
    "health": "PROXY_HEALTH_PORT",
    "ingest": "PROXY_INGEST_PORT",
}
HOST = "http://127.0.0.1"


@dataclass(frozen=True)
class Plan:
    """Which processes run, and their configuration."""

    keys: Mapping[str, str]  # upstream key -> account
    gateways: int
    services: Sequence[str] = ("router",)
    settings: Mapping[str, str] | None = None


class Member:
    """One process of the product."""

    def __init__(self, name: str, env: Mapping[str, str], log: Path) -> None:
        self._name = name
        self._env = dict(env)
        self._env.setdefault(PORTS[name], str(free_port()))
        self._log = log
        self.origin = f"{HOST}:{self._env[PORTS[name]]}"
        self.process = self._started()

    @property
    def url(self) -> str:
        """A gateway's address, with /v1."""
        return f"{self.origin}/v1"

    def twin(self, log: Path, **settings: str) -> "Member":
        """Another process of this kind, on its own port, with other settings."""
        env = {k: v for k, v in self._env.items() if k != PORTS[self._name]}
        return Member(self._name, {**env, **settings}, log)

    async def ready(self) -> None:
        # In a thread: this loop serves the upstream, which health checks probe.
        await asyncio.to_thread(wait_for, self.process, f"{self.origin}/healthz")

    async def end(self) -> None:
        if self.process.alive:
            await asyncio.to_thread(self.process.end)

    def start_anew(self) -> None:
        """Restart after the process ended: same settings, empty memory."""
        self.process = self._started()

    def _started(self) -> Process:
        self._env.setdefault("PROXY_DRAIN_SECONDS", "2")
        command = service_command(self._name, self._env)
        return Process(command, self._env, self._log)


@dataclass(frozen=True)
class Fleet:
    """The running processes. Resources are named `openai-N`, in the order of the
    keys."""

    simulator: RunningSimulator
    keys: Mapping[str, str]
    gateways: Sequence[Member]
    router: Member
    services: Mapping[str, Member]  # of which there is one
    database: str  # its URL
    redis_url: str

    @property
    def admin(self) -> str:
        """The admin API's address."""
        return f"{self.router.origin}/admin"

    def resource(self, key: str) -> str:
        """The resource id of an upstream key."""
        return f"openai-{list(self.keys).index(key) + 1}"

    async def state(self) -> dict[str, Any]:
        """State as the admin API shows it: resources, ledger, queue."""
        async with httpx.AsyncClient(timeout=GUARD_S) as client:
            answer = await client.get(f"{self.admin}/state")
        answer.raise_for_status()
        shown: dict[str, Any] = answer.json()
        return shown

    async def in_flight(self) -> dict[str, int]:
        """Requests in flight per resource, without zeros."""
        resources = (await self.state())["resources"]
        return {r["id"]: r["in_flight"] for r in resources if r["in_flight"]}

    async def chooses(self, key: str) -> bool:
        """Whether an upstream key is chosen for requests, whatever their model."""
        name = self.resource(key)
        return any(
            found["id"] == name
            and found["health"] in {"healthy", "unknown"}
            and not found["paused_models"]
            for found in (await self.state())["resources"]
        )

    async def settled(self) -> bool:
        """Nothing in flight, nothing waiting to be stored."""
        state = await self.state()
        return (state["queue_depth"], state["ledger"]["in_flight"]) == (0, 0)

    async def has_tables(self) -> None:
        """Wait until ingest has made them."""
        ingest = self.services["ingest"]
        await asyncio.to_thread(wait_for, ingest.process, f"{ingest.origin}/readyz")

    async def ready(self) -> bool:
        """Whether every gateway has read the whole catalogue."""
        async with httpx.AsyncClient(timeout=GUARD_S) as client:
            answers = [await client.get(f"{g.origin}/readyz") for g in self.gateways]
        known = {(a.status_code, a.json()["resources"]) for a in answers}
        return known == {(200, len(self.keys))}


@asynccontextmanager
async def running_fleet(
    plan: Plan, simulator: RunningSimulator, redis_url: str, folder: Path
) -> AsyncIterator[Fleet]:
    """All processes of the plan, ready; stopped when the context ends."""
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
        members: list[Member] = []
        stack.push_async_callback(_end, members)
        for number, name in enumerate(names):
            members.append(Member(name, common, folder / f"{name}-{number}.log"))
        for member in members:
            await member.ready()
        fleet = Fleet(
            simulator=simulator,
            keys=plan.keys,
            gateways=members[len(plan.services) :],
            router=members[names.index("router")],
            services=dict(zip(plan.services, members, strict=False)),
            database=common.get("PROXY_DATABASE_URL", common["PROXY_SQLITE_URL"]),
            redis_url=redis_url,
        )
        await eventually(fleet.ready)
        yield fleet


async def _end(members: Sequence[Member]) -> None:
    """Stop all at the same time, because each takes a while."""
    await asyncio.gather(*(member.end() for member in members))
