"""Policies of keys and teams through all processes: every rule over HTTP and over a
socket."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support.databases.sql import fetch
from tests.support.databases.valkey import empty
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio(loop_scope="module")
FORWARDED = "x-forwarded-for"
OUTSIDE, INSIDE = {FORWARDED: "198.51.100.1"}, {FORWARDED: "203.0.113.1, 192.0.2.7"}
PLAN = Plan(
    {"sk-sim-a": "acct-a"},
    gateways=1,
    services=("router", "ingest"),
    settings={
        "PROXY_TRUSTED_PROXIES": "127.0.0.0/8,::1/128",
        "PROVIDER_ACME": "sk-sim-a",
    },
)
ASK = {"model": "gpt-5.5", "input": "hi"}
# Policy, what it allows, what it refuses, the code of the refusal.
RULES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "models": ({"models": ["gpt-5.5*"]}, {}, {"model": "o9"}, "model_not_allowed"),
    "effort": (
        {"max_reasoning_effort": "low"},
        {"reasoning": {"effort": "low"}},
        {"reasoning": {"effort": "high"}},
        "reasoning_effort_not_allowed",
    ),
    "tiers": (
        {"service_tiers": ["flex"]},
        {"service_tier": "flex"},
        {"service_tier": "priority"},
        "service_tier_not_allowed",
    ),
    "output": (
        {"max_output_tokens": 100},
        {"max_output_tokens": 100},
        {},
        "max_output_tokens_not_allowed",
    ),
}


class Stack:
    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.http = httpx.AsyncClient(timeout=20)

    async def mint(self, **fields: Any) -> str:
        answer = await self.http.post(f"{self.fleet.admin}/keys", json=fields)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["secret"])

    async def asks(
        self, key: str, path: str = "/responses", **more: Any
    ) -> tuple[int, str | None]:
        """Status and code of an answer. `headers` beside members of the body."""
        headers = {"authorization": f"Bearer {key}", **more.pop("headers", {})}
        url = f"{self.fleet.gateways[0].url}{path}"
        answer = await self.http.post(url, json={**ASK, **more}, headers=headers)
        error = answer.json().get("error") or {}
        return answer.status_code, error.get("code")

    def socket(self, key: str, **headers: str) -> connect:
        url = self.fleet.gateways[0].url.replace("http", "ws", 1)
        given = {"authorization": f"Bearer {key}", **headers}
        return connect(f"{url}/responses", additional_headers=given, proxy=None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    valkey_server: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("fleet")
    async with (
        Simulator({"sk-sim-a": "acct-a"}) as simulator,
        running_fleet(PLAN, simulator, valkey_server, folder) as fleet,
    ):
        made = Stack(fleet)
        yield made
        await made.http.aclose()


async def turn(socket: ClientConnection, **more: Any) -> tuple[int, str | None]:
    """Status and code of a turn's end."""
    await socket.send(json.dumps({"type": "response.create", **ASK, **more}))
    while True:
        event = json.loads(await socket.recv())
        if event["type"] == "error":
            return event["status"], event["error"]["code"]
        if event["type"] == "response.completed":
            return 200, None


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_of_a_key(stack: Stack, rule: str) -> None:
    policy, allowed, refused, code = RULES[rule]
    key = await stack.mint(name=rule, policy=policy)
    assert await stack.asks(key, **allowed) == (200, None)
    assert await stack.asks(key, **refused) == (403, code)
    async with stack.socket(key) as socket:
        assert await turn(socket, **refused) == (403, code)
        assert await turn(socket, **allowed) == (200, None)
    query = (
        "SELECT r.transport, r.error_code FROM requests r JOIN proxy_keys k "
        f"ON k.id = r.proxy_key_id WHERE k.name = '{rule}' AND r.status_code = 403"
    )

    async def stored() -> bool:
        found = sorted(fetch(stack.fleet.database, query))
        return found == [("http", code), ("ws", code)]

    await eventually(stored)


async def test_models_that_a_key_sees(stack: Stack) -> None:
    """The list has what requests may name, aliases included."""
    provider = {
        "id": "acme",
        "provider_type": "custom",
        "base_url": stack.fleet.simulator.base_url,
        "credential_ref": "env:PROVIDER_ACME",
        "pool_id": "p",
    }
    made = await stack.http.post(f"{stack.fleet.admin}/providers", json=provider)
    assert made.status_code == 201, made.text
    for alias in ("fast", "o-alias"):
        target = {"alias": alias, "provider_id": "acme", "upstream_id": "o9"}
        made = await stack.http.post(f"{stack.fleet.admin}/models", json=target)
        assert made.status_code == 201, made.text
    key = await stack.mint(policy={"models": ["gpt-5.5*", "fast"]})
    url = f"{stack.fleet.gateways[0].url}/models"
    headers = {"authorization": f"Bearer {key}"}

    async def listed(**more: Any) -> list[str]:
        answer = await stack.http.get(url, **more)
        return [model["id"] for model in answer.json()["data"]]

    async def has_aliases() -> bool:
        return {"fast", "o-alias"} <= set(await listed())

    await eventually(has_aliases)
    everything, seen = await listed(), await listed(headers=headers)
    assert seen == [m for m in everything if m.startswith("gpt-5.5") or m == "fast"]
    assert len(seen) > 1
    for name, status in {
        "fast": 200,
        "gpt-5.5": 200,
        "o-alias": 404,
        "o9": 404,
    }.items():
        answer = await stack.http.get(f"{url}/{name}", headers=headers)
        assert answer.status_code == status, name
        if status == 404:
            assert answer.json()["error"]["code"] == "model_not_found"
            assert await stack.asks(key, model=name) == (403, "model_not_allowed")


async def test_a_key_asks_about_itself(stack: Stack) -> None:
    key = await stack.mint(name="curious", requests_per_minute=5, team_id="t")
    assert await stack.asks(key) == (200, None)
    url = f"{stack.fleet.gateways[0].url}/proxy/me"
    answer = await stack.http.get(url, headers={"api-key": key})
    told = answer.json()
    assert (told["name"], told["prefix"], told["team_id"]) == ("curious", key[:10], "t")
    limit = {"limit": 5, "used": 1, "remaining": 4}
    assert told["limits"]["requests_per_minute"] == limit
    assert key not in answer.text
    assert (await stack.http.get(url)).status_code == 401


async def test_a_spent_budget_is_told_everywhere(stack: Stack) -> None:
    key = await stack.mint(name="spender", budget_tokens=1, budget_window="total")
    assert await stack.asks(key) == (200, None)
    assert await stack.asks(key) == (429, "insufficient_quota")
    url = f"{stack.fleet.gateways[0].url}/proxy/me"
    told = (await stack.http.get(url, headers={"api-key": key})).json()
    (budget,) = told["budgets"]
    assert (budget["subject"], budget["budget_tokens"]) == ("key", 1)
    assert budget["spent_tokens"] > 1
    row = (await stack.http.get(f"{stack.fleet.admin}/keys/{told['id']}")).json()
    assert row["spend"]["tokens"] == budget["spent_tokens"]

    async def is_noticed() -> bool:
        found = (await stack.http.get(f"{stack.fleet.admin}/attention")).json()["data"]
        subjects = {each["subject"] for each in found if each["kind"] == "tenant_limit"}
        return f"key:{told['id']}" in subjects

    await eventually(is_noticed)


async def test_endpoints(stack: Stack) -> None:
    key = await stack.mint(policy={"endpoints": ["embeddings"]})
    assert await stack.asks(key) == (403, "endpoint_not_allowed")
    assert (await stack.asks(key, "/embeddings"))[1] != "endpoint_not_allowed"
    with pytest.raises(InvalidStatus) as refused:
        await stack.socket(key)
    assert refused.value.response.status_code == 403


async def test_addresses_behind_a_balancer(stack: Stack) -> None:
    key = await stack.mint(policy={"ip_allow": ["192.0.2.0/24"]})
    assert await stack.asks(key, headers=INSIDE) == (200, None)
    for headers in ({}, OUTSIDE):
        assert await stack.asks(key, headers=headers) == (403, "address_not_allowed")
    async with stack.socket(key, **INSIDE) as socket:
        assert await turn(socket) == (200, None)
    with pytest.raises(InvalidStatus) as refused:
        await stack.socket(key, **OUTSIDE)
    assert refused.value.response.status_code == 403
    seen = stack.fleet.simulator.state.journal.shown(None, bodies=False)["entries"]
    assert {"POST", "GET", "WS"} <= {entry["method"] for entry in seen}
    assert not any(FORWARDED in str(entry["headers"]).lower() for entry in seen)


async def test_a_team_holds_its_keys_to_its_policy(stack: Stack) -> None:
    teams = f"{stack.fleet.admin}/teams"
    key = await stack.mint(team_id="search", policy={"models": ["gpt-*"]})
    team = {"id": "search", "policy": {"models": ["*-mini"]}}
    async with stack.socket(key) as socket:
        assert await turn(socket) == (200, None)
        made = await stack.http.post(teams, json=team)
        assert (made.status_code, made.json()["policy"]["models"]) == (201, ["*-mini"])

        async def refused() -> bool:
            return await stack.asks(key) == (403, "model_not_allowed")

        await eventually(refused)
        assert await turn(socket) == (403, "model_not_allowed")  # open all the while
        assert await turn(socket, model="gpt-5.5-mini") == (200, None)
    assert await stack.asks(key, model="o9-mini") == (403, "model_not_allowed")
    again = await stack.http.post(teams, json=team)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "team_exists")
    kept = await stack.http.delete(f"{teams}/search")
    assert (kept.status_code, kept.json()["error"]["code"]) == (409, "team_has_keys")
    lifted = await stack.http.patch(f"{teams}/search", json={"policy": None})
    assert lifted.json()["policy"] is None

    async def allowed() -> bool:
        return await stack.asks(key) == (200, None)

    await eventually(allowed)
