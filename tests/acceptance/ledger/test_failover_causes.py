"""The reasons why requests left a key, from the upstream's fault to the SQL view:
through every process, on SQLite and on Postgres."""

import asyncio
import json
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
from tests.support.processes.up import Up, environment, running
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
async def up(
    request: pytest.FixtureRequest, tmp_path: Path, simulator: RunningSimulator
) -> AsyncIterator[Up]:
    settings = {
        "OPENAI_API_KEYS": ",".join(KEYS),
        "PROXY_UPSTREAM_BASE_URL": simulator.base_url,
        "PROXY_FIRST_BYTE_TIMEOUT_SECONDS": "5",
    }
    if request.param == "postgres":
        settings["PROXY_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    with running(environment(tmp_path, **settings), tmp_path) as up:
        # The upstream runs in this loop, and is probed before `up` is ready.
        await asyncio.to_thread(up.wait_until_ready)
        yield up


async def ask(http: httpx.AsyncClient, up: Up) -> str:
    """Send a request that the second key serves; returns its id."""
    body = {"model": "gpt-5.5", "input": "hello"}
    answer = await http.post(f"{up.url}/responses", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-proxy-attempts"] == "2"
    return str(answer.headers["x-proxy-request-id"])


async def test_every_cause_is_told_in_sql(up: Up, simulator: RunningSimulator) -> None:
    caused: dict[str, str] = {}
    async with httpx.AsyncClient(timeout=60) as http:
        for fault, cause in FAULTS:
            match = {"path": "/v1/responses"}  # health checks have another path
            script = {"fault": fault, "times": 1, "match": match}
            simulator.state.faults.add(parse_script(script))
            caused[await ask(http, up)] = cause

    async def stored() -> bool:
        ((count,),) = fetch(up.database, "SELECT count(*) FROM requests")
        return bool(count == len(FAULTS))

    await eventually(stored)
    told = fetch(up.database, "SELECT request_id, attempt, cause FROM decisions")
    firsts = [(id_, 1, None) for id_ in caused]
    assert sorted(told) == sorted([*firsts, *((i, 2, c) for i, c in caused.items())])
    check_view(up)
    await check_history(up, *caused.popitem())
    check_logs(up)
    await check_metrics(up)


def check_logs(up: Up) -> None:
    """One key: each failover, and the key that the upstream refused."""
    moved = logged(up, "gateway", "failover")
    assert Counter(line["cause"] for line in moved) == Counter(
        cause for _, cause in FAULTS
    )
    (refused,) = [line for line in moved if line["cause"] == "key_refused"]
    changed = [
        line
        for line in logged(up, "ingest", "health_changed")
        if line["resource"] == refused["resource"]
    ]
    assert "unhealthy" in {line["after"] for line in changed}


def logged(up: Up, service: str, action: str) -> list[dict[str, Any]]:
    text = Path(up.data_dir, "logs", f"{service}.log").read_text()
    lines = map(json.loads, text.splitlines())
    return [line for line in lines if line["action"] == action]


async def check_metrics(up: Up) -> None:
    found = await scraped(up.url.removesuffix("/v1"))
    times = Counter(cause for _, cause in FAULTS)
    for cause, count in times.items():
        assert found.value("proxy_failovers_total", cause=cause) == count
    assert found.value("proxy_requests_total", outcome="completed") == len(FAULTS)
    router = await scraped(f"http://127.0.0.1:{up.environ['PROXY_ROUTER_PORT']}")
    # The refused key may be healthy again: a check of its own follows the refusal.
    # test_outages.py has one that stays refused.
    available = {
        dict(labels)["resource"]: value
        for (name, labels), value in router.samples.items()
        if name == "proxy_resource_available"
    }
    assert len(available) == len(KEYS)
    assert set(available.values()) <= {0, 1}


def check_view(up: Up) -> None:
    columns = "cause, times, requests, completed, rate"
    rows = fetch(up.database, f"SELECT {columns} FROM failovers_by_cause")
    times = Counter(cause for _, cause in FAULTS)
    assert sorted(rows) == [
        (cause, n, n, n, n / len(FAULTS)) for cause, n in sorted(times.items())
    ]


async def check_history(up: Up, id_: str, cause: str) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        page = (await http.get(f"{up.admin}/decisions?request_id={id_}")).json()
        request = (await http.get(f"{up.admin}/requests/{id_}")).json()
    assert [d["cause"] for d in page["data"]] == [cause, None]
    assert [d["cause"] for d in request["decisions"]] == [None, cause]
