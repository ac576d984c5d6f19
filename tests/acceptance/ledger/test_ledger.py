"""A thousand requests through all services, then the ledger is balanced: on SQLite and
on Postgres."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from libs.simulator.server import RunningSimulator
from tests.support.databases.postgres import fresh_database
from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUESTS = 1000
AT_ONCE = 50
WEIGHTS = "2,1,1,1"
KEYS = {"sk-a": "a", "sk-b": "b", "sk-c": "c", "sk-d": "d"}
ASK = {"model": "gpt-5.5", "input": "Say hello"}
LIMITS = httpx.Limits(max_connections=150, max_keepalive_connections=150)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment that selects the database."""
    if request.param == "sqlite":
        yield {}
    else:
        with fresh_database(request.getfixturevalue("postgres_server")) as url:
            yield {"PROXY_DATABASE_URL": url}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with Simulator(KEYS) as running_simulator:
        yield running_simulator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(
    tmp_path_factory: pytest.TempPathFactory,
    valkey_server: str,
    database: dict[str, str],
    simulator: RunningSimulator,
) -> AsyncIterator[Fleet]:
    empty(valkey_server)
    settings = {"OPENAI_RESOURCE_WEIGHTS": WEIGHTS, **database}
    plan = Plan(KEYS, 1, ("router", "health", "ingest"), settings)
    folder = tmp_path_factory.mktemp("fleet")
    async with running_fleet(plan, simulator, valkey_server, folder) as fleet:
        await fleet.has_tables()
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60, limits=LIMITS) as client:
        yield client


async def test_every_request_is_stored_exactly_once(
    fleet: Fleet, http: httpx.AsyncClient
) -> None:
    assert fetch(fleet.database, "SELECT id FROM requests") == []
    one_by_one = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int) -> str:
        async with one_by_one:
            answer = await http.post(
                f"{fleet.gateways[0].url}/responses",
                json={**ASK, "stream": number % 2 == 0},
            )
        assert answer.status_code == 200, answer.text
        return answer.headers["x-proxy-request-id"]

    sent = await asyncio.gather(*(ask(n) for n in range(REQUESTS)))

    await eventually(fleet.settled)
    stored = [row[0] for row in fetch(fleet.database, "SELECT id FROM requests")]
    assert Counter(stored) == Counter(sent)
    decided = fetch(fleet.database, "SELECT id, request_id FROM decisions")
    assert len({id_ for id_, _ in decided}) == len(decided) >= REQUESTS
    assert {request for _, request in decided} == set(sent)
    outcomes = fetch(
        fleet.database,
        "SELECT outcome, usage_state, count(*) FROM requests GROUP BY 1, 2",
    )
    assert outcomes == [("completed", "final", REQUESTS)]
    assert fetch(fleet.database, "SELECT count(*) FROM dead_letters") == [(0,)]


async def test_held_requests_are_shared_by_weight(
    fleet: Fleet, http: httpx.AsyncClient, simulator: RunningSimulator
) -> None:
    simulator.state.holding.hold("*")
    asked = [
        asyncio.create_task(http.post(f"{fleet.gateways[0].url}/responses", json=ASK))
        for _ in range(100)
    ]

    async def all_held() -> bool:
        return bool(simulator.state.holding.shown()["total"] == 100)

    await eventually(all_held)
    state = (await http.get(f"{fleet.admin}/state")).json()
    held = {r["id"]: r["in_flight"] for r in state["resources"]}
    simulator.state.holding.release()
    answers = await asyncio.gather(*asked)

    assert {answer.status_code for answer in answers} == {200}
    fair = {"openai-1": 40, "openai-2": 20, "openai-3": 20, "openai-4": 20}
    assert all(abs(held[id_] - share) <= 2 for id_, share in fair.items()), held
    await eventually(fleet.settled)
