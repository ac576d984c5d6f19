"""One of several gateways is killed with streams in progress: within seconds its
requests are no longer in flight and are in the ledger, and the other gateways are not
affected."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from libs.simulator.faults.faults import parse_script
from libs.simulator.server import RunningSimulator
from tests.support.clients.scrapes import scraped
from tests.support.processes.fleet import Fleet, Member, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio

KEYS = {"sk-a1": "a", "sk-a2": "a", "sk-b1": "b", "sk-b2": "b"}
UNDER_WAY = 30  # streams of the victim that have begun
WAITING = 30  # streams that the upstream has not answered yet
ELSEWHERE = 10  # streams on each of the other gateways
STREAM = "telemetry:events"
LIMITS = httpx.Limits(max_connections=200)


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with Simulator(KEYS) as running:
        yield running


@pytest_asyncio.fixture
async def fleet(
    simulator: RunningSimulator, valkey: str, tmp_path: Path
) -> AsyncIterator[Fleet]:
    async with running_fleet(Plan(KEYS, 3), simulator, valkey, tmp_path) as fleet:
        yield fleet


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60, limits=LIMITS) as client:
        yield client


async def test_in_flight_is_true_again_after_kill_9_of_a_gateway(
    fleet: Fleet, redis: Redis, http: httpx.AsyncClient
) -> None:
    victim, *others = fleet.gateways
    cut = await _begin(fleet, http, victim)
    fleet.simulator.state.holding.hold("*")
    cut += _ask(http, victim, "waiting", WAITING)
    kept = [task for n, g in enumerate(others) for task in _ask(http, g, n, ELSEWHERE)]
    await eventually(lambda: _held(fleet, WAITING + len(kept)))
    assert sum((await fleet.in_flight()).values()) == len(cut) + len(kept)

    await asyncio.to_thread(victim.process.kill)

    await eventually(lambda: _agrees(fleet, len(kept)))
    lost = await asyncio.gather(*cut, return_exceptions=True)
    assert all(isinstance(end, httpx.TransportError) for end in lost), lost

    async def told() -> bool:
        return len(await _interrupted(redis)) == len(cut)

    await eventually(told)  # by a successor or the reaper, after the leases expired
    interrupted = await _interrupted(redis)
    assert Counter(e["session_id"] for e in interrupted) == Counter(
        task.get_name() for task in cut
    )
    assert len({e["gateway_id"] for e in interrupted}) == 1

    await eventually(lambda: _is_told(fleet, others, len(cut)))

    fleet.simulator.state.holding.release()
    for answer in await asyncio.gather(*kept):
        assert answer.status_code == 200, answer.text
        assert "event: response.completed" in answer.text
    await eventually(lambda: _agrees(fleet, 0))
    await _booked_once(redis, len(cut), len(kept))


async def _is_told(fleet: Fleet, others: list[Member], lost: int) -> bool:
    """The log and the metrics of GatewayDied, of who was first: a successor that
    recovered the journal, or the router."""
    scrapes = [await scraped(gateway.origin) for gateway in others]
    recovered = sum(s.value("proxy_recovered_requests_total") for s in scrapes)
    router = await scraped(fleet.router.origin)
    reaped = router.value("proxy_router_reaped_leases_total")
    logs = [gateway.process.logged("journal_taken_over") for gateway in others]
    logs.append(fleet.router.process.logged("leases_reaped"))
    return any(logs) and recovered + reaped >= lost


async def _begin(
    fleet: Fleet, http: httpx.AsyncClient, gateway: Member
) -> "list[asyncio.Task[httpx.Response]]":
    """Open streams and wait for their first events; the upstream then pauses."""
    script = {"times": UNDER_WAY, "fault": {"stall_after": 3}}
    fleet.simulator.state.faults.add(parse_script(script))
    tasks = _ask(http, gateway, "under-way", UNDER_WAY)

    async def begun() -> bool:
        entries = fleet.simulator.state.journal.shown(None, bodies=False)["entries"]
        streams = [e for e in entries if e["stream"] and e["response_length"]]
        return len(streams) == UNDER_WAY and not fleet.simulator.state.faults.listed()

    await eventually(begun)
    return tasks


def _ask(
    http: httpx.AsyncClient, gateway: Member, what: object, count: int
) -> "list[asyncio.Task[httpx.Response]]":
    """Open streams, each in its own session, which identifies it in the ledger."""
    body = {"model": "gpt-5.5", "input": "hello", "stream": True}

    async def ask(session: str) -> httpx.Response:
        headers = {"x-proxy-session-id": session}
        return await http.post(f"{gateway.url}/responses", json=body, headers=headers)

    names = [f"{what}-{number}" for number in range(count)]
    return [asyncio.create_task(ask(name), name=name) for name in names]


async def _held(fleet: Fleet, count: int) -> bool:
    return bool(fleet.simulator.state.holding.shown()["total"] == count)


async def _agrees(fleet: Fleet, total: int) -> bool:
    """The product's number of requests in flight equals the upstream's open streams."""
    waiting = fleet.simulator.state.holding.shown()["waiting"]
    open_ = {fleet.resource(key): count for key, count in waiting.items()}
    believed = await fleet.in_flight()
    return sum(believed.values()) == total and believed == open_


async def _interrupted(redis: Redis) -> list[dict[str, Any]]:
    """Each request is recorded once, whoever recorded it."""
    found = [e for e in await _requests(redis) if e["outcome"] == "interrupted"]
    return list({event["id"]: event for event in found}.values())


async def _requests(redis: Redis) -> list[dict[str, Any]]:
    """The request events so far; no ingest removes them. Several processes may report a
    dead gateway's requests, and ingest stores one event per id."""
    entries: Any = await redis.xrange(STREAM)
    events = [json.loads(f[b"data"]) for _, f in entries if f[b"kind"] == b"request"]
    return list({event["id"]: event for event in events}.values())


async def _booked_once(redis: Redis, interrupted: int, completed: int) -> None:
    """One event for each request, and no others."""

    async def all_booked() -> bool:
        return len(await _requests(redis)) >= interrupted + completed

    await eventually(all_booked)
    events = await _requests(redis)
    assert Counter(e["outcome"] for e in events) == {
        "interrupted": interrupted,
        "completed": completed,
    }
