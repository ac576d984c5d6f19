"""What was spent, as the admin API and the gateway tell it after Redis was emptied,
before any request: the router sums it when somebody asks."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio
KEYS = {"sk-sim-a": "acct-a"}
PLAN = Plan(KEYS, gateways=1, services=("router", "ingest"))
MOST = 10**9
REQUESTS = 3
Told = Callable[[], Awaitable[bool]]


class World:
    """A proxy, and what people read from it."""

    def __init__(self, fleet: Fleet, http: httpx.AsyncClient) -> None:
        self.fleet = fleet
        self.http = http
        self.admin, self.gateway = fleet.admin, fleet.gateways[0].url

    async def posted(self, kind: str, **fields: Any) -> dict[str, Any]:
        answer = await self.http.post(f"{self.admin}/{kind}", json=fields)
        made: dict[str, Any] = answer.raise_for_status().json()
        return made

    async def uses(self, key: dict[str, Any]) -> int:
        """Send requests. Returns their tokens."""
        ask = {"model": "gpt-5.5", "input": "hi", "max_output_tokens": 50}
        url, total = f"{self.gateway}/responses", 0
        for _ in range(REQUESTS):
            answer = await self.http.post(url, json=ask, headers=auth(key))
            assert answer.status_code == 200, answer.text
            total += answer.json()["usage"]["total_tokens"]
        return total

    async def row(self, place: str) -> int | None:
        row = (await self.http.get(f"{self.admin}/{place}")).raise_for_status().json()
        return row["spend"] and int(row["spend"]["tokens"])

    async def me(self, key: dict[str, Any]) -> int | None:
        answer = await self.http.get(f"{self.gateway}/proxy/me", headers=auth(key))
        if answer.status_code != 200 or answer.json()["budgets"] is None:
            return None  # the router restores the keys and the functions
        spent: int | None = answer.json()["budgets"][0]["spent_tokens"]
        return spent

    async def is_stored(self) -> bool:
        query = "SELECT count(*) FROM requests WHERE total_tokens > 0"
        return fetch(self.fleet.database, query) == [(2 * REQUESTS,)]


def auth(key: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {key['secret']}"}


@pytest_asyncio.fixture
async def world(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("fleet")
    async with (
        Simulator(KEYS) as simulator,
        running_fleet(PLAN, simulator, valkey_server, folder) as fleet,
        httpx.AsyncClient(timeout=20) as http,
    ):
        yield World(fleet, http)


async def test_spend_is_told_before_the_first_request(
    world: World, valkey_server: str
) -> None:
    """Also that of a revoked key, and of a team."""
    await world.posted("teams", id="red", budget_tokens=MOST)
    key = await world.posted("keys", team_id="red", budget_tokens=MOST)
    revoked = await world.posted("keys", budget_tokens=MOST, budget_reserve=True)
    spent = {each["id"]: await world.uses(each) for each in (key, revoked)}
    await world.http.delete(f"{world.admin}/keys/{revoked['id']}")
    await eventually(world.is_stored)
    empty(valkey_server)

    def is_told(read: Callable[[], Awaitable[int | None]], amount: int) -> Told:
        async def told() -> bool:
            found = await read()
            assert found in {None, amount}  # never another figure
            return found is not None

        return told

    own, other = spent[key["id"]], spent[revoked["id"]]
    await eventually(is_told(lambda: world.me(key), own))
    await eventually(is_told(lambda: world.row(f"keys/{revoked['id']}"), other))
    await eventually(is_told(lambda: world.row("teams/red"), own))
    listed = (await world.http.get(f"{world.admin}/keys")).json()["data"]
    assert {row["id"]: row["spend"]["tokens"] for row in listed} == spent
