"""For each row of "When something is down" in docs/operate.md: the part is broken, and
the log line, the metric, the alert and the words on the page tell it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from libs.common.redis.shared_connection import connect
from libs.simulator.faults.faults import parse_script
from tests.support.clients.chromium import chromium
from tests.support.databases.postgres import postgres_that_stops
from tests.support.databases.valkey import Valkey
from tests.support.processes.breakable import Check, Row, World
from tests.support.processes.debian import program
from tests.support.processes.fleet import Plan, running_fleet
from tests.support.processes.processes import ROOT
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator
from tests.support.values.outages import Line, Outage, outages

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),  # of the ports of nine processes on a busy machine
]
KEYS = {"sk-a1": "a", "sk-b1": "b"}
STREAM = "telemetry:events"
SETTINGS = {
    "PROXY_HEARTBEAT_SECONDS": "0.2",
    "PROXY_GATEWAY_SILENCE_SECONDS": "3",
    "PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "1",
    "PROXY_DRAIN_SECONDS": "1",
    # Each service starts an interpreter: a fork of one that has imported all of them
    # would have the metrics of all.
    "PYTHONPATH": str(ROOT),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    program("promtool", "prometheus")
    program("chromium", "chromium")
    folder = tmp_path_factory.mktemp("outages")
    valkey = Valkey(folder)
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(Simulator(KEYS))
        postgres = stack.enter_context(postgres_that_stops())
        stack.callback(valkey.kill)
        valkey.start()
        settings = {**SETTINGS, "PROXY_DATABASE_URL": f"{postgres.url}/postgres"}
        plan = Plan(KEYS, 2, ("ingest", "router", "health"), settings)
        started = running_fleet(plan, simulator, valkey.url, folder)
        fleet = await stack.enter_async_context(started)
        browser = await stack.enter_async_context(chromium(folder))
        page = await browser.page()
        await page.visit(f"{fleet.gateways[0].origin}/")
        world = World(fleet, simulator, valkey, postgres, folder, page)
        try:
            yield world
        finally:
            await asyncio.gather(*(member.end() for member in world.more))


@pytest_asyncio.fixture(loop_scope="module")
async def world(standing: World) -> World:
    await standing.calm()
    return standing


ROWS: Mapping[str, Outage] = outages()
SOURCE = Path(__file__).read_text()


def above(least: float) -> Check:
    return lambda value: value > least


def equal(wanted: float) -> Check:
    return lambda value: value == wanted


async def test_each_row_has_a_test() -> None:
    assert len(ROWS) >= 8
    assert [down for down in ROWS if f'Row.of("{down}", world)' not in SOURCE] == []


async def test_the_router(world: World) -> None:
    row = await Row.of("router", world)
    router, gateway = world.fleet.router, world.fleet.gateways[0]
    await router.end()
    await row.logs("gateway", "degraded_began", "router")
    await row.measures("gateway", "proxy_degraded", equal(1), part="router")
    await row.alerts("RouterUnreachable")
    # A page that is open says so; another does not open, as it comes from the router.
    await row.page_shows("#live", "connection lost, trying again")
    await row.page_shows("#notices", "The router does not answer")
    async with httpx.AsyncClient(timeout=60) as http:
        for path in ("/", "/admin/attention"):
            answer = await http.get(f"{gateway.origin}{path}")
            assert answer.status_code == 503
            assert "router" in answer.json()["error"]["message"]
    assert (await world.ask()).status_code == 200
    router.start_anew()
    await router.ready()
    row.is_told()


async def test_the_health_service(world: World) -> None:
    row = await Row.of("health", world)
    health = world.fleet.services["health"]
    await health.end()
    await row.logs("router", "degraded_began", "health")
    await row.measures("router", "proxy_degraded", equal(1), part="health")
    await row.alerts("HealthChecksStopped")
    await row.says("degraded", "health", "No health service checks the upstream keys")
    health.start_anew()
    await health.ready()
    row.is_told()


async def test_ingest_and_the_database(world: World) -> None:
    row = await Row.of("ingest or SQL", world)
    ingest = world.fleet.services["ingest"]
    async with connect(world.valkey.url) as redis:
        await eventually(lambda: _all_is_stored(redis))
        await ingest.end()
        old = await _waits_since_an_hour(redis)
        assert (await world.ask()).status_code == 200
        await row.logs("router", "degraded_began", "ingest")
        age = "proxy_queue_oldest_seconds"
        await row.measures("router", age, above(3_600))
        await row.alerts("NotStored", age)
        await row.says("backlog", "ingest", "Ingest does not store")
        await redis.xdel(STREAM, old)
    ingest.start_anew()
    await ingest.ready()
    await world.calm()

    world.postgres.stop()
    await row.logs("router", "degraded_began", "database")
    await row.logs("ingest", "store_away")
    for service in ("router", "ingest"):
        await row.measures(service, "proxy_sql_up", equal(0))
    await row.alerts("DatabaseDown")
    await row.says("degraded", "database", "The database does not answer")
    assert (await world.ask()).status_code == 200
    world.postgres.start()
    row.is_told()


async def _all_is_stored(redis: Redis) -> bool:
    return await redis.xlen(STREAM) == 0


async def _waits_since_an_hour(redis: Redis) -> bytes | str:
    """An event that looks as if ingest had stopped an hour ago. Only a new stream takes
    one that old."""
    seconds, _ = await redis.time()
    await redis.delete(STREAM)
    event: dict[Any, Any] = {"kind": "health", "id": "x", "v": 1, "data": "{}"}
    return await redis.xadd(STREAM, event, f"{(seconds - 3_700) * 1000}-1")


async def test_redis(world: World) -> None:
    row = await Row.of("Redis", world)
    world.valkey.kill()
    assert (await world.ask()).status_code == 200
    await row.logs("gateway", "degraded_began", "redis")
    for service in ("gateway", "router", "health", "ingest"):
        await row.measures(service, "proxy_redis_up", equal(0))
    await row.measures("gateway", "proxy_outbox_events", above(0))
    await row.alerts("RedisDown")
    await row.says("degraded", "redis", "Redis does not answer")
    world.valkey.start()
    row.is_told()


async def test_the_disk_of_a_gateway(world: World) -> None:
    row = await Row.of("the gateway's disk (full, read-only)", world)
    folder = world.folder / "full"
    folder.mkdir()
    (folder / "journal").write_text("a file where the folder should be")
    gateway = await world.gateway("full")
    await row.logs("gateway", "degraded_began", "journal")
    await row.measures("gateway", "proxy_degraded", equal(1), part="journal")
    await row.alerts("JournalInMemory")
    await row.says("degraded", "journal of gateway ", "Its journal is in memory only")
    await gateway.end()
    world.more.remove(gateway)
    row.is_told()


async def test_one_key_and_all_keys(world: World) -> None:
    accounts, (one, other) = world.simulator.state.accounts, KEYS
    row = await Row.of("one key", world)
    # Checks have another path: one that came first would keep all requests away.
    match = {"path": "/v1/responses"}
    script = {"fault": {"revoked": True}, "key": one, "match": match}
    world.simulator.state.faults.add(parse_script(script))

    async def moved() -> bool:
        """Requests alternate between idle keys by chance."""
        assert (await world.ask()).status_code == 200
        return bool(world.logged(Line("gateway", "failover")))

    await eventually(moved)
    accounts.revoke(one)
    world.simulator.state.faults.clear()
    await row.logs("gateway", "failover")
    await row.logs("ingest", "health_changed")
    resource = world.fleet.resource(one)
    await row.measures(
        "router", "proxy_resource_available", equal(0), resource=resource
    )
    await row.measures("gateway", "proxy_failovers_total", above(0))
    await row.alerts("ResourceUnavailable")
    await row.says("resource_unhealthy", resource, "The upstream refuses this key")
    row.is_told()

    accounts.restore(one)
    await world.calm()
    row = await Row.of("all keys", world)
    accounts.revoke(one)
    accounts.revoke(other)
    answers = [await world.ask() for _ in range(3)]
    assert {answer.status_code for answer in answers} <= {401, 503}
    assert answers[-1].json()["error"]["code"] == "no_capacity"
    await row.logs("router", "degraded_began", "resources")
    await row.logs("gateway", "request_failed")
    await row.logs("gateway", "request_refused")
    await row.measures("router", "proxy_resource_available", equal(0))
    await row.alerts("NoResource")
    await row.says("degraded", "resources", "Every upstream key")
    row.is_told()
    accounts.restore(one)
    accounts.restore(other)


async def test_a_gateway(world: World) -> None:
    alone = await world.gateway("alone")
    beside = world.fleet.gateways[0].twin(world.folder / "beside.log")
    world.more.append(beside)
    await beside.ready()
    row = await Row.of("a gateway", world)
    world.simulator.state.holding.hold("*")
    asked = [asyncio.create_task(world.ask(each)) for each in (alone, beside)]

    async def under_way() -> bool:
        return sum((await world.fleet.in_flight()).values()) == len(asked)

    await eventually(under_way)
    await asyncio.to_thread(beside.process.kill)
    # Another gateway has the same folder.
    await row.logs("gateway", "journal_taken_over")
    await row.measures("gateway", "proxy_recovered_requests_total", above(0))
    await row.alerts("GatewayDied")
    await asyncio.to_thread(alone.process.kill)
    await row.logs("router", "leases_reaped")
    await row.measures("router", "proxy_router_reaped_leases_total", above(0))
    await row.measures("router", "proxy_gateways", above(0), state="silent")
    await row.alerts("GatewayNotRecovered")
    (started,) = alone.process.logged("gateway_started")
    silent = str(started["gateway"])
    await row.says("gateway_silent", silent, "This gateway sends no heartbeat")
    row.is_told()
    world.simulator.state.holding.release()
    await asyncio.gather(*asked, return_exceptions=True)
    alone.start_anew()  # as the page says
    await alone.ready()
    await world.calm()
