"""A gateway with a real Redis-compatible server and the simulated upstream; the test
acts as the router."""

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis

from libs.cli.commands import service_command
from libs.common.contracts.catalogue import Catalogue, Resource
from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions
from libs.common.settings.resources import resources_from_environment
from libs.simulator.server import RunningSimulator
from services.router.function_library import LIBRARY
from tests.support.clients.sockets import visited
from tests.support.databases.valkey import empty
from tests.support.processes.ports import free_port
from tests.support.processes.processes import GUARD_S, Process, running
from tests.support.processes.serving import Handle
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

STREAM = "telemetry:events"
# Four keys of two accounts.
KEYS = {
    "sk-sim-a1": "acct-a",
    "sk-sim-a2": "acct-a",
    "sk-sim-b1": "acct-b",
    "sk-sim-b2": "acct-b",
}


def _now_ms() -> int:
    return int(time.time() * 1000)


@dataclass
class Stack:
    """What a test of the gateway needs."""

    url: str  # the gateway's, with /v1
    redis: Redis
    routing: RoutingFunctions
    simulator: RunningSimulator
    gateway: Process
    environ: dict[str, str]
    initially: dict[str, str]
    began_ms: int = field(default_factory=_now_ms)
    versions: "count[int]" = field(default_factory=lambda: count(100))

    @property
    def origin(self) -> str:
        return self.url.removesuffix("/v1")

    async def publish(self, version: str = "v1") -> None:
        """Load the library and publish the catalogue, as the router does."""
        await self.routing.load_library()
        base_url = self.environ["PROXY_UPSTREAM_BASE_URL"]
        resources = resources_from_environment(self.environ, base_url)
        if base_url != self.initially["PROXY_UPSTREAM_BASE_URL"]:
            resources = of_providers(resources)
        await self.routing.publish(
            Catalogue(version=version, resources=resources), "published"
        )

    async def reset(self) -> None:
        """Start over with an emptied Redis: no faults, an empty journal, and the
        catalogue that the stack began with."""
        self.began_ms = _now_ms()
        self.environ.update(self.initially)
        async with httpx.AsyncClient(timeout=GUARD_S) as client:
            await client.delete(f"{self.simulator.control_url}/faults")
            await client.delete(f"{self.simulator.control_url}/journal")
        await self.publish(f"v{next(self.versions)}")

        async def adopted() -> bool:
            async with httpx.AsyncClient(timeout=GUARD_S) as client:
                answer = await client.get(f"{self.origin}/readyz")
            published = await self.routing.catalogue_version()
            return bool(answer.json()["catalogue"] == published)

        await eventually(adopted)

    async def ready(self) -> bool:
        async with httpx.AsyncClient(timeout=GUARD_S) as client:
            answer = await client.get(f"{self.origin}/readyz")
        ready: dict[str, Any] = answer.json()
        return answer.status_code == 200 and bool(ready["resources"])

    async def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of a kind, oldest first, without duplicates: gateways resend unstored
        events to an emptied Redis, including events of earlier tests."""
        entries: Any = await self.redis.xrange(STREAM)
        found = {
            fields[b"id"]: json.loads(fields[b"data"])
            for _, fields in entries
            if fields[b"kind"] == kind.encode()
        }
        return [e for e in found.values() if e["created_at_ms"] >= self.began_ms]

    async def requests(self, count: int) -> list[dict[str, Any]]:
        """The ledger's events of requests, once there are that many. That of the last
        one may arrive later than its answer ends."""

        async def found() -> list[dict[str, Any]]:
            events = await self.events("request")
            return events if len(events) >= count else []

        events = await eventually(found)
        assert len(events) == count
        return events

    async def drop_events(self) -> None:
        """Trim the stream as ingest does after each batch, so that neither the stream
        nor the journal grows with the tests that ran before."""
        await self.redis.xtrim(STREAM, maxlen=0, approximate=False)

    async def request(self, request_id: str) -> dict[str, Any]:
        """The ledger's event of one request, once it exists."""

        async def find() -> dict[str, Any] | None:
            events = await self.events("request")
            return next((e for e in events if e["id"] == request_id), None)

        found = await eventually(find)
        assert found is not None
        return found

    async def decisions(self, request_id: str) -> list[dict[str, Any]]:
        events = await self.events("decision")
        return [e for e in events if e["request_id"] == request_id]

    async def in_flight(self) -> int:
        return await self.routing.in_flight()

    async def fault(self, times: int | None = 1, key: str = "*", **fault: Any) -> None:
        """Script the upstream's next answers."""
        async with httpx.AsyncClient(timeout=GUARD_S) as client:
            script = {"key": key, "times": times, "fault": fault}
            url = f"{self.simulator.control_url}/faults"
            (await client.post(url, json=script)).raise_for_status()

    def journal(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.simulator.state.journal.shown(
            None, bodies=False
        )["entries"]
        return entries


def of_providers(resources: Iterable[Resource]) -> tuple[Resource, ...]:
    """The same keys in variables for providers: keys in OPENAI_* variables are only
    sent to the gateway's PROXY_UPSTREAM_BASE_URL."""
    return tuple(
        resource.model_copy(
            update={"credential": resource.credential.replace("OPENAI_API", "PROVIDER")}
        )
        for resource in resources
    )


@asynccontextmanager
async def gateway_stack(
    valkey: str, folder: Path, **environ: str
) -> AsyncIterator[Stack]:
    """A ready gateway in front of a simulated upstream."""
    async with stack_started_by(None, valkey, folder, environ) as stack:
        yield stack


@asynccontextmanager
async def stack_started_by(
    command: list[str] | None, valkey: str, folder: Path, environ: Mapping[str, str]
) -> AsyncIterator[Stack]:
    """The same, with a command of the test's own for the gateway."""
    async with Simulator(KEYS) as simulator:
        port = free_port()
        env = {
            "PROXY_REDIS_URL": valkey,
            "PROXY_DATA_DIR": str(folder),
            "PROXY_PORT": str(port),
            "PROXY_UPSTREAM_BASE_URL": simulator.base_url,
            "PROXY_HEARTBEAT_SECONDS": "0.1",
            "PROXY_ROUTER_URL": f"http://127.0.0.1:{free_port()}",  # no router
            "OPENAI_API_KEYS": ",".join(KEYS),
            "OPENAI_RESOURCE_ACCOUNT_IDS": ",".join(KEYS.values()),
            **environ,
        }
        env["PROVIDER_KEYS"] = env["OPENAI_API_KEYS"]
        arguments = command or service_command("gateway", env)
        process = Process(arguments, env, folder / "gateway.log")
        async with connect(valkey) as redis:
            routing = RoutingFunctions(ClientCaller(redis), STREAM, library=LIBRARY)
            with running(process, f"http://127.0.0.1:{port}/healthz"):
                url = f"http://127.0.0.1:{port}/v1"
                stack = Stack(url, redis, routing, simulator, process, env, dict(env))
                await stack.publish()
                await eventually(stack.ready)
                yield stack


@asynccontextmanager
async def gateway_before(
    upstream: Handle, valkey: str, folder: Path, **environ: str
) -> AsyncIterator[Stack]:
    """A ready gateway with an emptied Redis, in front of the test's own upstream."""
    empty(valkey)
    async with visited(upstream) as visits:
        url = f"http://127.0.0.1:{visits.port}/v1"
        settings = {**environ, "PROXY_UPSTREAM_BASE_URL": url}
        async with gateway_stack(valkey, folder, **settings) as stack:
            yield stack
