"""The health service as a process, in front of the simulated upstream."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.contracts.catalogue import ResourceState
from libs.common.redis.check_queue import Orders
from libs.common.redis.client import ClientCaller
from libs.common.redis.shared_connection import connect
from libs.common.routing.functions import RoutingFunctions
from libs.common.settings.resources import resources_from_environment
from libs.simulator.server import RunningSimulator
from services.router.catalogue import build_catalogue
from services.router.function_library import LIBRARY
from tests.support.clients.sockets import relay_to, visited
from tests.support.databases.certificates import Authority, make_authority
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, running
from tests.support.processes.waiting import eventually
from tests.support.upstreams.egress import EgressProxy, running_proxy
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio
STREAM = "telemetry:events"
KEYS = {"sk-1": "acct-1", "sk-2": "acct-2"}
COMMAND = [sys.executable, "-m", "services.health"]


@dataclass
class Standing:
    routing: RoutingFunctions
    orders: Orders
    simulator: RunningSimulator
    environ: dict[str, str]
    folder: Path

    async def publish(self) -> None:
        """Publish the catalogue, as the router does."""
        base_url = self.environ["PROXY_UPSTREAM_BASE_URL"]
        resources = resources_from_environment(self.environ, base_url)
        await self.routing.load_library()
        await self.routing.publish(build_catalogue(resources), "published")

    def start(self, name: str = "health") -> Process:
        env = {**self.environ, "PROXY_HEALTH_PORT": str(free_port())}
        self.probe = f"http://127.0.0.1:{env['PROXY_HEALTH_PORT']}/readyz"
        return Process(COMMAND, env, self.folder / f"{name}.log")

    async def states(self) -> dict[str, ResourceState]:
        return {state.id: state for state in await self.routing.states()}

    async def becomes(self, **expected: str) -> dict[str, ResourceState]:
        """Wait until the resources have the given health."""

        async def as_expected() -> dict[str, ResourceState] | None:
            states = await self.states()
            named = {id_.replace("-", "_"): s.health for id_, s in states.items()}
            return states if named == expected else None

        found = await eventually(as_expected)
        assert found is not None
        return found

    async def fault(self, key: str, **fault: Any) -> None:
        """Set a fault until it is cleared."""
        async with httpx.AsyncClient(timeout=60) as client:
            script = {"key": key, "fault": fault}
            url = f"{self.simulator.control_url}/faults"
            (await client.post(url, json=script)).raise_for_status()

    async def clear(self) -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            await client.delete(f"{self.simulator.control_url}/faults")

    def asked(self) -> list[str]:
        """The keys used so far, in order."""
        shown = self.simulator.state.journal.shown(None, bodies=False)
        return [entry["key"] for entry in shown["entries"]]


@asynccontextmanager
async def standing(valkey: str, folder: Path, **more: str) -> AsyncIterator[Standing]:
    async with Simulator(KEYS) as simulator:
        redis = connect(valkey)
        routing = RoutingFunctions(ClientCaller(redis), STREAM, library=LIBRARY)
        environ = {
            "PROXY_REDIS_URL": valkey,
            "PROXY_UPSTREAM_BASE_URL": simulator.base_url,
            "OPENAI_API_KEYS": ",".join(KEYS),
            "PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "0.1",
            "PROXY_HEALTH_CHECK_TIMEOUT_SECONDS": "60",
            "PROXY_RESOURCE_COOLDOWN_SECONDS": "0.2",
            **more,
        }
        try:
            yield Standing(routing, Orders(redis), simulator, environ, folder)
        finally:
            await redis.aclose()


async def test_a_revoked_key_is_found_and_found_again(
    valkey: str, tmp_path: Path
) -> None:
    async with standing(valkey, tmp_path) as world:
        await world.publish()
        process = world.start()
        with running(process, world.probe):
            await world.becomes(openai_1="healthy", openai_2="healthy")
            await world.fault("sk-2", revoked=True)
            states = await world.becomes(openai_1="healthy", openai_2="unhealthy")
            assert "401" in (states["openai-2"].last_error or "")
            await world.clear()
            await world.becomes(openai_1="healthy", openai_2="healthy")


async def test_a_limited_key_cools_down_and_recovers(
    valkey: str, tmp_path: Path
) -> None:
    async with standing(valkey, tmp_path) as world:
        await world.publish()
        process = world.start()
        with running(process, world.probe):
            await world.becomes(openai_1="healthy", openai_2="healthy")
            await world.fault("sk-1", status=429, headers={"retry-after-ms": "300"})
            await world.becomes(openai_1="degraded", openai_2="healthy")
            await world.clear()
            await world.becomes(openai_1="healthy", openai_2="healthy")


async def test_an_upstream_that_fails_several_times_in_a_row_is_degraded(
    valkey: str, tmp_path: Path
) -> None:
    async with standing(valkey, tmp_path) as world:
        await world.publish()
        process = world.start()
        with running(process, world.probe):
            await world.becomes(openai_1="healthy", openai_2="healthy")
            await world.fault("sk-1", reset=True)
            await world.becomes(openai_1="degraded", openai_2="healthy")


async def test_a_hanging_upstream_does_not_hold_up_the_others_or_the_end(
    valkey: str, tmp_path: Path
) -> None:
    async with standing(valkey, tmp_path) as world:
        await world.publish()
        await world.fault("sk-1", timeout=True)
        process = world.start()
        with running(process, world.probe):
            await world.becomes(openai_1="unknown", openai_2="healthy")
            # Far less than the 60 s of a check.
            assert await asyncio.to_thread(process.end, within_s=30) == 0


async def test_an_order_is_carried_out_at_once(valkey: str, tmp_path: Path) -> None:
    rare = {"PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "1000"}
    async with standing(valkey, tmp_path, **rare) as world:
        await world.publish()
        process = world.start()
        with running(process, world.probe):
            await world.becomes(openai_1="healthy", openai_2="healthy")
            await world.fault("sk-1", revoked=True)
            await world.orders.place("order-1")
            answer = await eventually(lambda: world.orders.fetch("order-1"))
            assert answer is not None
            found = {f["resource_id"]: f["health"] for f in json.loads(answer)}
            assert found == {"openai-1": "unhealthy", "openai-2": "healthy"}


async def test_of_two_replicas_one_checks_and_the_other_takes_over(
    valkey: str, tmp_path: Path
) -> None:
    rare = {"PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "1000"}
    async with standing(valkey, tmp_path, **rare) as world:
        await world.publish()
        first = world.start("first")
        with running(first, world.probe):
            await world.becomes(openai_1="healthy", openai_2="healthy")
            second = world.start("second")
            with running(second, world.probe):
                async with httpx.AsyncClient(timeout=60) as http:
                    said = (await http.get(world.probe)).json()
                assert said["details"] == {"prober": "stands by"}
                assert sorted(world.asked()) == ["sk-1", "sk-2"]
                first.kill()

                async def taken_over() -> bool:
                    return len(world.asked()) == 4

                await eventually(taken_over)


async def test_it_waits_for_a_catalogue_and_for_redis(tmp_path: Path) -> None:
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    async with standing(url, tmp_path) as world:
        process = world.start()

        async def status() -> int:
            async with httpx.AsyncClient(timeout=60) as http:
                try:
                    return (await http.get(world.probe)).status_code
                except httpx.ConnectError:
                    return 0

        async def unavailable() -> bool:
            return await status() == 503

        await eventually(unavailable)
        with running_valkey(tmp_path, port), running(process, world.probe):
            await world.publish()
            await world.becomes(openai_1="healthy", openai_2="healthy")


async def test_switched_off_it_stays_up_and_asks_nobody(
    valkey: str, tmp_path: Path
) -> None:
    off = {"PROXY_HEALTH_CHECK_ENABLED": "false"}
    async with standing(valkey, tmp_path, **off) as world:
        await world.publish()
        process = world.start()
        with running(process, world.probe):
            async with httpx.AsyncClient(timeout=60) as http:
                said = (await http.get(world.probe)).json()
            assert said["details"] == {"prober": "disabled"}
            assert await asyncio.to_thread(process.end) == 0
        assert world.asked() == []


@asynccontextmanager
async def behind_a_proxy(
    valkey: str, folder: Path, authority: Authority
) -> AsyncIterator[tuple[Standing, EgressProxy]]:
    """The upstream is at https://api.test, which only the proxy can resolve."""
    async with standing(valkey, folder) as world, running_proxy() as proxy:
        relay, tls = relay_to(world.simulator.port), authority.server("api.test")
        async with visited(relay, tls=tls) as visits:
            world.environ |= {
                "PROXY_UPSTREAM_BASE_URL": f"https://api.test:{visits.port}/v1",
                "HTTPS_PROXY": f"http://us:hush@127.0.0.1:{proxy.port}",
            }
            await world.publish()
            yield world, proxy


async def test_checks_take_the_way_that_requests_take(
    valkey: str, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path)
    async with behind_a_proxy(valkey, tmp_path, authority) as (world, proxy):
        world.environ["PROXY_UPSTREAM_CA_FILE"] = str(authority.file)
        with running(world.start(), world.probe):
            await world.becomes(openai_1="healthy", openai_2="healthy")
    assert all(line.startswith("CONNECT api.test:") for line in proxy.lines)


async def test_a_certificate_nobody_vouches_for_is_named(
    valkey: str, tmp_path: Path
) -> None:
    async with behind_a_proxy(valkey, tmp_path, make_authority(tmp_path)) as (world, _):

        async def told() -> bool:
            cause = "the TLS handshake failed: unable to get local issuer certificate"
            return {s.last_error for s in (await world.states()).values()} == {cause}

        with running(world.start(), world.probe):
            await eventually(told)
