"""The reasons why requests left a key, from the upstream's fault to the SQL view:
through every process, on SQLite and on Postgres."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from libs.simulator.faults.faults import parse_script
from libs.simulator.server import RunningSimulator
from tests.support.clients.scrapes import scraped
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio

# One key per fault that disables it, and one more that serves.
KEYS = {f"sk-{name}": name for name in "abcdefgh"}
FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"status": 500}, "server_error"),
    ({"status": 503}, "server_error"),
    ({"garbage": True}, "connection_lost"),
    ({"timeout": True}, "timeout"),
    ({"status": 403, "code": "model_not_found"}, "model_refused"),
    ({"status": 429}, "rate_limited"),
    ({"status": 429, "code": "insufficient_quota"}, "insufficient_quota"),
    ({"revoked": True}, "key_refused"),
]


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with Simulator(KEYS) as running_simulator:
        yield running_simulator


@pytest_asyncio.fixture(params=["sqlite", "postgres"])
async def fleet(
    request: pytest.FixtureRequest,
    valkey: str,
    tmp_path: Path,
    simulator: RunningSimulator,
) -> AsyncIterator[Fleet]:
    settings = {"PROXY_FIRST_BYTE_TIMEOUT_SECONDS": "5"}
    if request.param == "postgres":
        settings["PROXY_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    plan = Plan(KEYS, 1, ("router", "health", "ingest"), settings)
    async with running_fleet(plan, simulator, valkey, tmp_path) as fleet:
        await fleet.has_tables()
        yield fleet


async def ask(http: httpx.AsyncClient, fleet: Fleet) -> str:
    """Send a request that the second key serves; returns its id."""
    body = {"model": "gpt-5.5", "input": "hello"}
    answer = await http.post(f"{fleet.gateways[0].url}/responses", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-proxy-attempts"] == "2"
    return str(answer.headers["x-proxy-request-id"])


async def test_every_cause_is_told_in_sql(
    fleet: Fleet, simulator: RunningSimulator
) -> None:
    caused: dict[str, str] = {}
    async with httpx.AsyncClient(timeout=60) as http:
        for fault, cause in FAULTS:
            match = {"path": "/v1/responses"}  # health checks have another path
            script = {"fault": fault, "times": 1, "match": match}
            simulator.state.faults.add(parse_script(script))
            caused[await ask(http, fleet)] = cause

    async def stored() -> bool:
        ((count,),) = fetch(fleet.database, "SELECT count(*) FROM requests")
        return bool(count == len(FAULTS))

    await eventually(stored)
    told = fetch(fleet.database, "SELECT request_id, attempt, cause FROM decisions")
    firsts = [(id_, 1, None) for id_ in caused]
    assert sorted(told) == sorted([*firsts, *((i, 2, c) for i, c in caused.items())])
    check_view(fleet)
    await check_history(fleet, *caused.popitem())
    check_logs(fleet)
    await check_metrics(fleet)


def check_logs(fleet: Fleet) -> None:
    """One key: each failover, and the key that the upstream refused."""
    moved = fleet.gateways[0].process.logged("failover")
    assert Counter(line["cause"] for line in moved) == Counter(
        cause for _, cause in FAULTS
    )
    (refused,) = [line for line in moved if line["cause"] == "key_refused"]
    ingest = fleet.services["ingest"].process
    changed = ingest.logged("health_changed", resource=refused["resource"])
    assert "unhealthy" in {line["after"] for line in changed}


async def check_metrics(fleet: Fleet) -> None:
    found = await scraped(fleet.gateways[0].origin)
    times = Counter(cause for _, cause in FAULTS)
    for cause, count in times.items():
        assert found.value("proxy_failovers_total", cause=cause) == count
    assert found.value("proxy_requests_total", outcome="completed") == len(FAULTS)
    router = await scraped(fleet.router.origin)
    # The refused key may be healthy again: a check of its own follows the refusal.
    # test_outages.py has one that stays refused.
    available = {
        dict(labels)["resource"]: value
        for (name, labels), value in router.samples.items()
        if name == "proxy_resource_available"
    }
    assert len(available) == len(KEYS)
    assert set(available.values()) <= {0, 1}


def check_view(fleet: Fleet) -> None:
    columns = "cause, times, requests, completed, rate"
    rows = fetch(fleet.database, f"SELECT {columns} FROM failovers_by_cause")
    times = Counter(cause for _, cause in FAULTS)
    assert sorted(rows) == [
        (cause, n, n, n, n / len(FAULTS)) for cause, n in sorted(times.items())
    ]


async def check_history(fleet: Fleet, id_: str, cause: str) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        page = (await http.get(f"{fleet.admin}/decisions?request_id={id_}")).json()
        request = (await http.get(f"{fleet.admin}/requests/{id_}")).json()
    assert [d["cause"] for d in page["data"]] == [cause, None]
    assert [d["cause"] for d in request["decisions"]] == [None, cause]
