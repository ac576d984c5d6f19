"""Tenants through all processes: what one proxy key (or its team) made does not exist
for another, over HTTP and sockets, also when Redis forgot or is away."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from libs.common.redis_client import connect as connect_redis
from libs.simulator.server import Simulator
from tests.support.fleet import Fleet, Plan, running_fleet
from tests.support.sql import fetch
from tests.support.valkey import empty
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL = "gpt-5.5"
# One account: every upstream key can read what any other made.
UPSTREAM_KEYS = {"sk-sim-1": "acct", "sk-sim-2": "acct"}
PLAN = Plan(
    UPSTREAM_KEYS,
    gateways=2,
    services=("router", "ingest"),
    settings={"PROXY_REQUIRE_KEYS": "true", "PROXY_HEARTBEAT_SECONDS": "0.1"},
)


class Tenants:
    """The running product, and proxy keys of it."""

    def __init__(self, fleet: Fleet, redis: Redis) -> None:
        self.fleet = fleet
        self.redis = redis
        self.http = httpx.AsyncClient(timeout=20)

    async def mint(self, **fields: Any) -> "Key":
        answer = await self.http.post(f"{self.fleet.admin}/keys", json=fields)
        assert answer.status_code == 201, answer.text
        return Key(self, answer.json())

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return fetch(self.fleet.database, query)

    async def stored(self) -> None:
        """Until everything that happened is in SQL."""
        await eventually(self.fleet.settled)


class Key:
    """A client with a proxy key."""

    def __init__(self, tenants: Tenants, minted: dict[str, Any]) -> None:
        self.tenants = tenants
        self.id = str(minted["id"])
        self.headers = {"authorization": f"Bearer {minted['secret']}"}

    async def call(
        self, method: str, path: str, gateway: int = 0, **more: Any
    ) -> httpx.Response:
        url = f"{self.tenants.fleet.gateways[gateway].url}{path}"
        headers = self.headers | more.pop("headers", {})
        return await self.tenants.http.request(method, url, headers=headers, **more)

    async def ask(self, gateway: int = 0, **fields: Any) -> httpx.Response:
        body = {"model": MODEL, "input": "hi", **fields}
        return await self.call("POST", "/responses", gateway, json=body)

    async def response(self, **fields: Any) -> str:
        """The id of a new response."""
        answer = await self.ask(**fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tenants(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Tenants]:
    folder: Path = tmp_path_factory.mktemp("tenants")
    empty(valkey_server)
    redis = connect_redis(valkey_server)
    async with (
        Simulator(UPSTREAM_KEYS) as simulator,
        running_fleet(PLAN, simulator, valkey_server, folder) as fleet,
    ):
        found = Tenants(fleet, redis)
        yield found
        await found.http.aclose()
    await redis.aclose()


def same_but_for(one: httpx.Response, other: httpx.Response, *ids: str) -> None:
    """Nothing tells two answers apart but the ids that were asked for."""
    texts, heads = [], []
    for answer in (one, other):
        text = answer.text
        for id_ in ids:
            text = text.replace(id_, "ID")
        texts.append((answer.status_code, text))
        varying = ("x-proxy-request-id", "date", "content-length")
        heads.append({k: v for k, v in answer.headers.items() if k not in varying})
    assert texts[0] == texts[1]
    assert heads[0] == heads[1]


async def test_key_b_cannot_continue_the_response_of_key_a(tenants: Tenants) -> None:
    a, b = await tenants.mint(), await tenants.mint()
    response_id = await a.response()
    assert (await a.ask(1, previous_response_id=response_id)).status_code == 200
    unknown = response_id[:-4] + "0000"
    refused = await b.ask(1, previous_response_id=response_id)
    assert refused.status_code == 400
    assert refused.json() == {
        "error": {
            "message": f"Previous response with id '{response_id}' not found.",
            "type": "invalid_request_error",
            "param": "previous_response_id",
            "code": "previous_response_not_found",
        }
    }
    nothing = await b.ask(1, previous_response_id=unknown)
    same_but_for(refused, nothing, response_id, unknown)


class TestResponses:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/responses/{}"),
            ("GET", "/responses/{}?stream=true"),
            ("GET", "/responses/{}/input_items"),
            ("POST", "/responses/{}/cancel"),
            ("DELETE", "/responses/{}"),
        ],
    )
    async def test_of_another_key_do_not_exist(
        self, tenants: Tenants, method: str, path: str
    ) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        response_id = await a.response(background=True)
        unknown = response_id[:-4] + "0000"
        refused = await b.call(method, path.format(response_id), 1)
        assert refused.status_code == 404
        nothing = await b.call(method, path.format(unknown), 1)
        same_but_for(refused, nothing, response_id, unknown)
        assert (await a.call(method, path.format(response_id))).status_code == 200

    async def test_are_shared_within_a_team(self, tenants: Tenants) -> None:
        one, two = [await tenants.mint(team_id="blue") for _ in range(2)]
        other = await tenants.mint(team_id="red")
        response_id = await one.response()
        assert (await two.call("GET", f"/responses/{response_id}")).is_success
        assert (await two.ask(1, previous_response_id=response_id)).is_success
        refused = await other.ask(1, previous_response_id=response_id)
        assert refused.json()["error"]["code"] == "previous_response_not_found"

    async def test_stay_with_the_tenant_of_their_time(self, tenants: Tenants) -> None:
        """A key that joins a team brings nothing, and leaves what it had."""
        key = await tenants.mint()
        response_id = await key.response()
        url = f"{tenants.fleet.admin}/keys/{key.id}"
        changed = await tenants.http.patch(url, json={"team_id": "green"})
        assert changed.json()["team_id"] == "green"

        async def moved() -> bool:
            answer = await key.call("GET", f"/responses/{response_id}")
            return answer.status_code == 404

        await eventually(moved)

    async def test_the_cause_is_in_sql_alone(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint(team_id="seen")
        response_id = await a.response()
        unknown = response_id[:-4] + "0000"
        await b.ask(previous_response_id=response_id)
        await b.ask(previous_response_id=unknown)
        await tenants.stored()
        assert tenants.rows(
            "SELECT status_code, outcome, error_code, team_id, resource_id "
            f"FROM requests WHERE proxy_key_id = '{b.id}' ORDER BY created_at"
        ) == [
            (400, "failed", "foreign_id", "seen", None),
            (400, "failed", "unknown_id", "seen", None),
        ]
        assert tenants.rows(
            "SELECT reason, decisions.resource_id FROM decisions JOIN requests "
            "ON requests.id = request_id "
            f"WHERE proxy_key_id = '{b.id}' ORDER BY requests.created_at"
        ) == [("foreign_id", None), ("unknown_id", None)]

    async def test_owners_survive_an_emptied_redis(self, tenants: Tenants) -> None:
        a, b = await tenants.mint(), await tenants.mint()
        response_id = await a.response()
        await tenants.stored()
        for gateway in tenants.fleet.gateways:  # their memory, too
            await gateway.end()
        await tenants.redis.flushdb()
        for gateway in tenants.fleet.gateways:
            gateway.start_anew()
            await gateway.ready()
        await eventually(tenants.fleet.ready, within_s=20)
        path = f"/responses/{response_id}"
        assert (await b.call("GET", path)).status_code == 404
        assert (await b.ask(previous_response_id=response_id)).status_code == 400
        assert (await a.call("GET", path)).status_code == 200
        assert (await a.ask(previous_response_id=response_id)).status_code == 200

    async def test_a_background_stream_can_be_cancelled_while_it_runs(
        self, tenants: Tenants
    ) -> None:
        a = await tenants.mint()
        url = f"{tenants.fleet.gateways[0].url}/responses"
        body = {"model": MODEL, "input": "hi", "background": True, "stream": True,
                "simulate_duration_ms": 60_000}  # fmt: skip
        async with tenants.http.stream(
            "POST", url, json=body, headers=a.headers
        ) as answer:
            created = await first_event(answer.aiter_lines())
            response_id = created["response"]["id"]
            cancelled = await a.call("POST", f"/responses/{response_id}/cancel", 1)
            assert cancelled.status_code == 200
            assert cancelled.json()["status"] == "cancelled"


async def first_event(lines: AsyncIterator[str]) -> dict[str, Any]:
    async for line in lines:
        if line.startswith("data: "):
            return dict(json.loads(line.removeprefix("data: ")))
    raise AssertionError("no event")
