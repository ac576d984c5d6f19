"""The real Codex requests a model alias, over HTTP and over a WebSocket."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from tests.support.clients.codex import Codex
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

OURS = {"sk-a1": "a"}
THEIRS = {"sk-registered": "b"}
PLAN = Plan(
    OURS,
    gateways=1,
    services=("router", "ingest", "health"),
    settings={"PROXY_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode()},
)


async def register(fleet: Fleet, base_url: str) -> None:
    """Register a provider, and an alias for one of its models."""
    provider: dict[str, Any] = {
        "id": "acme",
        "provider_type": "custom",
        "base_url": base_url,
        "api_key": "sk-registered",
    }
    model = {"alias": "fast", "provider_id": "acme", "upstream_id": "gpt-5.4-mini"}
    async with httpx.AsyncClient(timeout=20) as http:
        for path, body in (("providers", provider), ("models", model)):
            answer = await http.post(f"{fleet.admin}/{path}", json=body)
            assert answer.status_code == 201, answer.text

        async def known() -> bool:
            ask = {"model": "fast", "input": "known yet?"}
            answer = await http.post(f"{fleet.gateways[0].url}/responses", json=ask)
            return bool(answer.headers.get("x-proxy-resource-id") == "acme")

        await eventually(known)


@pytest.mark.asyncio
@pytest.mark.parametrize("websockets", ["false", "true"], ids=["http", "websocket"])
async def test_a_turn_with_a_tool_call(
    valkey: str, tmp_path: Path, websockets: str
) -> None:
    (home := tmp_path / "home").mkdir()
    async with (
        Simulator(OURS) as ours,
        Simulator(THEIRS) as theirs,
        running_fleet(PLAN, ours, valkey, tmp_path) as fleet,
    ):
        await register(fleet, theirs.base_url)
        codex = Codex(fleet.gateways[0].url, home, websockets)
        turn = await asyncio.to_thread(codex.exec, "-m", "fast", "please run-tool")
        assert turn.status == 0, turn.shown
        assert "Simulated answer" in turn.said
        await eventually(fleet.settled)
        rows = fetch(
            fleet.database,
            "SELECT model, upstream_model, resource_id, outcome, transport"
            f" FROM requests WHERE session_id = '{turn.session}'",
        )
    transport = "ws" if websockets == "true" else "sse"
    # The turn, and its tool's output.
    assert len(rows) >= 2
    assert set(rows) == {("fast", "gpt-5.4-mini", "acme", "completed", transport)}
