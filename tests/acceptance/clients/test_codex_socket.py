"""The real Codex through the whole product, over WebSockets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.clients.codex import Codex, Turn
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio
KEYS = {"sk-a1": "a", "sk-b1": "b"}
SERVICES = ("router", "ingest", "health")
# A rejected key is noticed when it is used.
UNCHECKED = {"PROXY_HEALTH_CHECK_INTERVAL_SECONDS": "3600"}


@dataclass(frozen=True)
class Product:
    """The running product, and a Codex that uses it."""

    fleet: Fleet
    codex: Codex

    async def exec(self, *words: str) -> Turn:
        """A successful run."""
        turn = await asyncio.to_thread(self.codex.exec, *words)
        assert turn.status == 0, turn.shown
        return turn

    async def fault(self, times: int | None = None, **fault: Any) -> None:
        """Script the upstream's next answers."""
        async with httpx.AsyncClient(timeout=60) as client:
            url = f"{self.fleet.simulator.control_url}/faults"
            answer = await client.post(url, json={"times": times, "fault": fault})
            answer.raise_for_status()

    def asked(self) -> list[tuple[str, str]]:
        """Method and key of all requests for responses at the upstream."""
        entries = self.fleet.simulator.state.journal.shown(None, bodies=False)
        return [
            (entry["method"], entry["key"])
            for entry in entries["entries"]
            if entry["path"] == "/v1/responses"
        ]

    async def requests(self, session: str, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of a session's requests, oldest first, once all are stored."""
        await eventually(self.fleet.settled)
        return fetch(
            self.fleet.database,
            f"SELECT {', '.join(columns)} FROM requests"
            f" WHERE session_id = '{session}' ORDER BY created_at, id",
        )


@pytest_asyncio.fixture
async def product(valkey: str, tmp_path: Path) -> AsyncIterator[Product]:
    plan = Plan(KEYS, gateways=1, services=SERVICES, settings=UNCHECKED)
    (home := tmp_path / "home").mkdir()
    async with (
        Simulator(KEYS) as simulator,
        running_fleet(plan, simulator, valkey, tmp_path) as fleet,
    ):
        yield Product(fleet, Codex(fleet.gateways[0].url, home, "true"))


async def test_a_turn_with_a_tool_call_runs_on_one_socket(product: Product) -> None:
    turn = await product.exec("please run-tool")

    assert "Simulated answer" in turn.said
    asked = product.asked()
    assert {method for method, _ in asked} == {"GET", "WS"}
    rows = await product.requests(
        turn.session, "transport", "outcome", "usage_state", "resource_id"
    )
    # The warm-up, the turn, and its tool's output.
    assert len(rows) >= 3
    assert set(rows) == {("ws", "completed", "final", rows[0][3])}


async def test_the_next_run_finds_its_account(product: Product) -> None:
    first = await product.exec("hello")
    second = await product.exec("resume", first.session, "and again")

    assert "and again" in second.said
    assert len({key for _, key in product.asked()}) == 1
    rows = await product.requests(first.session, "transport", "outcome", "resource_id")
    assert set(rows) == {("ws", "completed", rows[0][2])}


async def test_codex_goes_on_when_its_socket_is_cut(product: Product) -> None:
    # Within the output, which the warm-up does not have: before that, another key would
    # serve the turn.
    await product.fault(times=2, ws_cut_after=3)
    turn = await product.exec("hello")

    assert "Simulated answer" in turn.said
    warm_up, cut, *others = await product.requests(
        turn.session, "outcome", "status_code", "error_code"
    )
    assert cut == ("failed", 502, "upstream_unreachable")
    assert others
    assert {warm_up, *others} == {("completed", 200, None)}


async def test_codex_goes_on_when_its_socket_is_cut_before_the_output(
    product: Product,
) -> None:
    await product.fault(times=1, ws_cut_after=2)
    turn = await product.exec("hello")

    assert "Simulated answer" in turn.said
    rows = await product.requests(turn.session, "outcome", "status_code", "attempts")
    assert rows[0] == ("completed", 200, 2)
    assert set(rows[1:]) == {("completed", 200, 1)}


async def test_codex_falls_back_to_http_when_the_upstream_says_so(
    product: Product,
) -> None:
    await product.fault(ws_refuse=426)
    turn = await product.exec("hello")

    assert "Simulated answer" in turn.said
    rows = await product.requests(turn.session, "transport", "status_code", "outcome")
    assert set(rows) == {("ws", 426, "failed"), ("sse", 200, "completed")}
