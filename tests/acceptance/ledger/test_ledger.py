"""A thousand requests through all services, then the ledger is balanced: on SQLite and
on Postgres."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from libs.simulator.server import RunningSimulator
from tests.support.databases.sql import fetch
from tests.support.processes.up import Up, environment, running
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio

REQUESTS = 1000
AT_ONCE = 50
WEIGHTS = "2,1,1,1"
KEYS = {"sk-a": "a", "sk-b": "b", "sk-c": "c", "sk-d": "d"}
ASK = {"model": "gpt-5.5", "input": "Say hello"}
LIMITS = httpx.Limits(max_connections=150, max_keepalive_connections=150)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment that selects the database."""
    if request.param == "sqlite":
        yield {}
    else:
        yield {"PROXY_DATABASE_URL": request.getfixturevalue("postgres_url")}


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with Simulator(KEYS) as running_simulator:
        yield running_simulator


@pytest_asyncio.fixture
async def up(
    tmp_path: Path, database: dict[str, str], simulator: RunningSimulator
) -> AsyncIterator[Up]:
    settings = {
        "OPENAI_API_KEYS": ",".join(KEYS),
        "OPENAI_RESOURCE_WEIGHTS": WEIGHTS,
        "PROXY_UPSTREAM_BASE_URL": simulator.base_url,
        **database,
    }
    with running(environment(tmp_path, **settings), tmp_path) as up:
        # The upstream runs in this loop, and is probed before `up` is ready.
        await asyncio.to_thread(up.wait_until_ready)
        yield up


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60, limits=LIMITS) as client:
        yield client


async def test_every_request_is_stored_exactly_once(
    up: Up, http: httpx.AsyncClient
) -> None:
    one_by_one = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int) -> str:
        async with one_by_one:
            answer = await http.post(
                f"{up.url}/responses", json={**ASK, "stream": number % 2 == 0}
            )
        assert answer.status_code == 200, answer.text
        return answer.headers["x-proxy-request-id"]

    sent = await asyncio.gather(*(ask(n) for n in range(REQUESTS)))

    await eventually(lambda: _settled(up, http))
    stored = [row[0] for row in fetch(up.database, "SELECT id FROM requests")]
    assert Counter(stored) == Counter(sent)
    decided = fetch(up.database, "SELECT id, request_id FROM decisions")
    assert len({id_ for id_, _ in decided}) == len(decided) >= REQUESTS
    assert {request for _, request in decided} == set(sent)
    outcomes = fetch(
        up.database,
        "SELECT outcome, usage_state, count(*) FROM requests GROUP BY 1, 2",
    )
    assert outcomes == [("completed", "final", REQUESTS)]
    assert fetch(up.database, "SELECT count(*) FROM dead_letters") == [(0,)]


async def _settled(up: Up, http: httpx.AsyncClient) -> bool:
    """Nothing in flight, nothing waiting to be stored."""
    state = (await http.get(f"{up.admin}/state")).json()
    ledger: dict[str, Any] = state["ledger"]
    return (state["queue_depth"], ledger["in_flight"]) == (0, 0)


async def test_held_requests_are_shared_by_weight(
    up: Up, http: httpx.AsyncClient, simulator: RunningSimulator
) -> None:
    simulator.state.holding.hold("*")
    asked = [
        asyncio.create_task(http.post(f"{up.url}/responses", json=ASK))
        for _ in range(100)
    ]

    async def all_held() -> bool:
        return bool(simulator.state.holding.shown()["total"] == 100)

    await eventually(all_held)
    state = (await http.get(f"{up.admin}/state")).json()
    held = {r["id"]: r["in_flight"] for r in state["resources"]}
    simulator.state.holding.release()
    answers = await asyncio.gather(*asked)

    assert {answer.status_code for answer in answers} == {200}
    fair = {"openai-1": 40, "openai-2": 20, "openai-3": 20, "openai-4": 20}
    assert all(abs(held[id_] - share) <= 2 for id_, share in fair.items()), held
    await eventually(lambda: _settled(up, http))
