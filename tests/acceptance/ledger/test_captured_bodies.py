"""Captured request and answer bodies, redacted, through real gateways, a real Redis and
a real ingest."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import zstandard
from redis.asyncio import Redis
from websockets.asyncio.client import connect as connect_socket

from libs.common.redis import keys
from libs.common.redis.capture_batches import unpacked
from libs.common.redis.shared_connection import connect
from libs.simulator.faults.faults import parse_script
from libs.simulator.server import RunningSimulator
from tests.support.databases.sql import fetch
from tests.support.processes.fleet import Fleet, Member, Plan, running_fleet
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulator import Simulator

pytestmark = pytest.mark.asyncio

KEYS = {"sk-a1": "a"}
PAYLOADS = keys.payloads("telemetry:events")
SETTINGS = {
    "PROXY_REDACT": "input[*].content,instructions,output[*].content",
    "PROXY_DRAIN_SECONDS": "5",
}
SECRET = "SECRET"
ASKED = {
    "model": "gpt-5.5",
    "instructions": f"{SECRET} 1",
    "input": [{"role": "user", "content": f"{SECRET} 2"}],
    "metadata": {"team": "visible"},
}


@pytest_asyncio.fixture
async def simulator() -> AsyncIterator[RunningSimulator]:
    async with Simulator(KEYS) as running:
        yield running


@pytest_asyncio.fixture
async def fleet(
    simulator: RunningSimulator, valkey: str, tmp_path: Path
) -> AsyncIterator[Fleet]:
    plan = Plan(KEYS, 1, ("router", "ingest"), SETTINGS)
    async with running_fleet(plan, simulator, valkey, tmp_path) as fleet:
        yield fleet


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as client:
        yield client


async def stored(fleet: Fleet, http: httpx.AsyncClient, id_: str) -> dict[str, Any]:
    """The request with its bodies, once ingest has stored them."""

    async def found() -> dict[str, Any]:
        row: dict[str, Any] = (await http.get(f"{fleet.admin}/requests/{id_}")).json()
        bodies = row.get("bodies") or {}
        return row if bodies.get("request") and bodies.get("response") else {}

    return await eventually(found)


async def ask(
    gateway: Member, http: httpx.AsyncClient, asked: dict[str, Any], **more: Any
) -> httpx.Response:
    body = json.dumps(asked).encode()
    headers = {"content-type": "application/json"}
    if coding := more.get("coding"):
        body = gzip.compress(body) if coding == "gzip" else zstandard.compress(body)
        headers["content-encoding"] = coding
    return await http.post(f"{gateway.url}/responses", content=body, headers=headers)


async def test_bodies_are_those_that_travelled_but_for_what_is_redacted(
    fleet: Fleet, http: httpx.AsyncClient
) -> None:
    cases = [(s, coding) for s in (False, True) for coding in (None, "gzip", "zstd")]
    for stream, coding in cases:
        asked = {**ASKED, "stream": stream}
        answer = await ask(fleet.gateways[0], http, asked, coding=coding)
        assert answer.status_code == 200
        row = await stored(fleet, http, answer.headers["x-proxy-request-id"])
        request, response = row["bodies"]["request"], row["bodies"]["response"]
        assert json.loads(request["body"]) == {
            **asked,
            "instructions": "[redacted]",
            "input": [{"role": "user", "content": "[redacted]"}],
        }
        assert request["original_bytes"] == row["request_bytes"]
        assert response["original_bytes"] == row["response_bytes"]
        assert row["response_bytes"] == len(answer.content)
        assert (SECRET in answer.text, SECRET in response["body"]) == (True, False)
        assert row["response_id"] in response["body"]
        assert _events(response["body"]) == _events(answer.text)
    rows = fetch(fleet.database, "SELECT count(*) FROM payloads")
    assert rows == [(2 * len(cases),)]


def _events(text: str) -> list[str]:
    """The event types of a stream."""
    return [line for line in text.splitlines() if line.startswith("event:")]


async def test_answers_of_ours_and_refusals_of_the_upstream_are_captured(
    fleet: Fleet, http: httpx.AsyncClient
) -> None:
    gateway = fleet.gateways[0]
    unknown = await ask(gateway, http, {**ASKED, "previous_response_id": "resp_none"})
    fleet.simulator.state.faults.add(parse_script({"fault": {"status": 503}}))
    passed_on = await ask(gateway, http, ASKED)
    ours = await http.post(
        f"{gateway.url}/responses",
        json=ASKED,
        headers={"x-pool-id": "nowhere"},
    )
    for answer in (unknown, passed_on, ours):
        assert answer.status_code >= 400
        row = await stored(fleet, http, answer.headers["x-proxy-request-id"])
        assert json.loads(row["bodies"]["response"]["body"]) == answer.json()


async def test_each_response_of_a_socket_has_its_own_bodies(
    fleet: Fleet, http: httpx.AsyncClient
) -> None:
    url = f"{fleet.gateways[0].url}/responses".replace("http", "ws", 1)
    headers = {"authorization": "Bearer x"}
    async with connect_socket(url, additional_headers=headers, proxy=None) as socket:
        for _ in range(2):
            await socket.send(json.dumps({"type": "response.create", **ASKED}))
            while json.loads(await socket.recv())["type"] != "response.completed":
                pass
    query = "SELECT id FROM requests ORDER BY created_at, id"

    async def both() -> list[tuple[Any, ...]]:
        rows = fetch(fleet.database, query)
        return rows if len(rows) == 2 else []

    for (id_,) in await eventually(both):
        row = await stored(fleet, http, id_)
        lines = row["bodies"]["response"]["body"].splitlines()
        types = [json.loads(line)["type"] for line in lines]
        assert (types[0], types[-1]) == ("response.created", "response.completed")
        assert row["response_id"] in lines[-1]
        assert SECRET not in str(row["bodies"])


async def test_what_waits_is_sent_on_sigterm(
    simulator: RunningSimulator, valkey: str, tmp_path: Path
) -> None:
    plan = Plan(KEYS, 1, ("router",), SETTINGS)
    async with (
        running_fleet(plan, simulator, valkey, tmp_path) as fleet,
        httpx.AsyncClient(timeout=60) as http,
        connect(valkey) as redis,
    ):
        gateway = fleet.gateways[0]
        answers = await asyncio.gather(*(ask(gateway, http, ASKED) for _ in range(50)))
        await gateway.end()
        assert {answer.status_code for answer in answers} == {200}
        assert await _ids(redis) == {a.headers["x-proxy-request-id"] for a in answers}


async def test_nothing_is_captured_at_a_limit_of_0(
    simulator: RunningSimulator, valkey: str, tmp_path: Path
) -> None:
    plan = Plan(KEYS, 1, ("router",), {"PROXY_MAX_CAPTURE_BYTES": "0"})
    async with (
        running_fleet(plan, simulator, valkey, tmp_path) as fleet,
        httpx.AsyncClient(timeout=60) as http,
        connect(valkey) as redis,
    ):
        assert (await ask(fleet.gateways[0], http, ASKED)).status_code == 200
        await fleet.gateways[0].end()
        assert await _ids(redis) == set()


async def _ids(redis: Redis) -> set[str]:
    found: Any = await redis.xrange(PAYLOADS)
    return {p.request_id for _, fields in found for p in unpacked(fields[b"data"])}
