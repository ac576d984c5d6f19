"""The real Codex through the whole product."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from libs.simulator.server import RunningSimulator
from tests.support.clients.codex import Codex
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulated import events_in
from tests.support.upstreams.simulator import Simulator

TWO_EACH = {"sk-a1": "a", "sk-a2": "a", "sk-b1": "b", "sk-b2": "b"}
ONE_EACH = {"sk-a1": "a", "sk-b1": "b"}
SERVICES = ("router", "ingest", "health")
# A rejected key is noticed when it is used, unless a test checks all keys.
UNCHECKED = {"PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "3600"}


@dataclass(frozen=True)
class Product:
    """The running product, and a Codex that uses it."""

    fleet: Fleet
    codex: Codex
    database: str

    @property
    def simulator(self) -> RunningSimulator:
        return self.fleet.simulator

    async def exec(self, prompt: str) -> str:
        """A successful first turn; returns its session id."""
        turn = await asyncio.to_thread(self.codex.exec, prompt)
        assert turn.status == 0, turn.shown
        return turn.session

    def asked(self) -> list[dict[str, Any]]:
        """Requests at the upstream, the gateway's retries included."""
        entries = self.simulator.state.journal.shown(None, bodies=True)["entries"]
        return [entry for entry in entries if entry["method"] == "POST"]

    async def check_keys(self) -> None:
        """Check all keys, as the health service does every half minute."""
        async with httpx.AsyncClient(timeout=30) as client:
            (
                await client.post(f"{self.fleet.admin}/health/check", json={})
            ).raise_for_status()

    async def requests(self, session: str, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of a session's requests, oldest first, once all are stored."""
        await eventually(self.fleet.settled)
        return fetch(
            self.database,
            f"SELECT {', '.join(columns)} FROM requests"
            f" WHERE session_id = '{session}' ORDER BY created_at, id",
        )


@pytest_asyncio.fixture
async def product(
    request: pytest.FixtureRequest, valkey: str, tmp_path: Path
) -> AsyncIterator[Product]:
    """The product with the keys in the test's parameter, all of which were checked: a
    check that comes later would find a key that the test revokes."""
    keys: dict[str, str] = request.param
    plan = Plan(keys, gateways=1, services=SERVICES, settings=UNCHECKED)
    (home := tmp_path / "home").mkdir()
    async with Simulator(keys) as simulator:
        simulator.state.journal.keep_bodies = True
        async with running_fleet(plan, simulator, valkey, tmp_path) as fleet:
            codex = Codex(fleet.gateways[0].url, home)

            async def checked() -> bool:
                entries = simulator.state.journal.shown(None, bodies=False)["entries"]
                good = [
                    e for e in entries if (e["method"], e["status"]) == ("GET", 200)
                ]
                return {entry["key"] for entry in good} == set(keys)

            await eventually(checked)
            await fleet.has_tables()
            yield Product(fleet, codex, fleet.database)


@pytest.mark.asyncio
@pytest.mark.parametrize("product", [TWO_EACH], indirect=True, ids=["siblings"])
async def test_a_turn_with_a_tool_call(product: Product) -> None:
    turn = await asyncio.to_thread(product.codex.exec, "please run-tool")

    assert turn.status == 0, turn.shown
    assert "Simulated answer" in turn.said

    async def sessions() -> list[tuple[int, str]]:
        return fetch(
            product.database,
            "SELECT requests, last_resource_id FROM sessions"
            f" WHERE id = '{turn.session}' AND requests >= 2",
        )

    ((requests, resource),) = await eventually(sessions)
    columns = ("resource_id", "outcome", "transport", "usage_state")
    rows = await product.requests(turn.session, *columns)
    assert rows == [(resource, "completed", "sse", "final")] * requests


@pytest.mark.asyncio
@pytest.mark.parametrize("product", [TWO_EACH], indirect=True, ids=["siblings"])
async def test_a_revoked_keys_conversation_goes_on_at_its_sibling(
    product: Product,
) -> None:
    session = await product.exec("hello")
    (first,) = product.asked()
    product.simulator.revoke(first["key"])

    turn = await asyncio.to_thread(product.codex.resume, session, "and again")

    assert turn.status == 0, turn.shown
    assert f"Simulated answer from {first['account']}: and again" in turn.said
    _, refused, served = product.asked()
    assert sealed_reasoning(served)
    assert (refused["key"], refused["status"]) == (first["key"], 401)
    assert served["key"] == sibling(first["key"])
    await assert_moved(product, session, [first["key"], served["key"]])


@pytest.mark.asyncio
@pytest.mark.parametrize("product", [TWO_EACH], indirect=True, ids=["siblings"])
async def test_a_key_revoked_within_a_turn_costs_nothing(product: Product) -> None:
    holding = product.simulator.state.holding
    holding.hold("*")
    running_turn = asyncio.create_task(product.exec("please run-tool"))
    # The turn's first request is admitted but not answered yet.
    waiting = await eventually(lambda: _waiting(product))
    (key,) = waiting
    product.simulator.revoke(key)
    holding.release()

    session = await running_turn

    called, refused, served = product.asked()
    assert (called["key"], called["status"]) == (key, 200)
    assert (refused["key"], refused["status"]) == (key, 401)
    assert sealed_reasoning(served)
    assert served["key"] == sibling(key)
    await assert_moved(product, session, [key, served["key"]])


async def _waiting(product: Product) -> dict[str, int]:
    """Held answers per key."""
    waiting: dict[str, int] = product.simulator.state.holding.shown()["waiting"]
    return waiting


async def assert_moved(product: Product, session: str, keys: list[str]) -> None:
    """The session's two requests succeeded, the second one on its second attempt."""
    rows = await product.requests(
        session, "resource_id", "account_id", "attempts", "status_code", "outcome"
    )
    first, second = (product.fleet.resource(key) for key in keys)
    account = TWO_EACH[keys[0]]
    assert rows == [
        (first, account, 1, 200, "completed"),
        (second, account, 2, 200, "completed"),
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("product", [ONE_EACH], indirect=True, ids=["no sibling"])
@pytest.mark.parametrize("checked", [False, True], ids=["found in use", "checked"])
async def test_without_a_sibling_codex_asks_once_and_says_why(
    product: Product, checked: bool
) -> None:
    session = await product.exec("hello")
    (first,) = product.asked()
    product.simulator.revoke(first["key"])
    if checked:
        await product.check_keys()

    turn = await asyncio.to_thread(product.codex.resume, session, "and again")

    assert turn.status != 0
    rows = await product.requests(session, "status_code", "outcome", "error_code")
    assert rows == [
        (200, "completed", None),
        (400, "failed", "affinity_owner_unavailable"),
    ]
    tried = [(entry["key"], entry["status"]) for entry in product.asked()[1:]]
    assert tried == ([] if checked else [(first["key"], 401)])
    assert "has no working key left" in turn.shown
    assert '"code":"invalid_encrypted_content"' in turn.shown
    await assert_says_why(product, continued(first))


def continued(entry: dict[str, Any]) -> dict[str, Any]:
    """A request that sends back this request's answer, as Codex does."""
    body: dict[str, Any] = json.loads(base64.b64decode(entry["body"]))
    events = events_in(base64.b64decode(entry["response_body"]).decode())
    return {**body, "input": [*body["input"], *events[-1]["response"]["output"]]}


async def assert_says_why(product: Product, body: dict[str, Any]) -> None:
    """Repeat the request to check headers that Codex does not print."""
    async with httpx.AsyncClient(timeout=30) as client:
        url = f"{product.codex.url}/responses"
        answer = await client.post(url, json=body)
    assert answer.status_code == 400
    assert answer.headers["x-proxy-reason"] == "affinity_owner_unavailable"


def sealed_reasoning(entry: dict[str, Any]) -> bool:
    """Whether a request carries reasoning that only its account can decrypt."""
    body = json.loads(base64.b64decode(entry["body"]))
    return any(item.get("encrypted_content") for item in body["input"])


def sibling(key: str) -> str:
    """The account's other key."""
    (other,) = (k for k in TWO_EACH if k != key and TWO_EACH[k] == TWO_EACH[key])
    return other
