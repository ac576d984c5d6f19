"""One upstream key that serves one request at a time: others wait, over HTTP and on
WebSockets, for a place or for the end of a cooldown."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.support.databases.valkey import empty
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]
ASK = {"model": "gpt-5.5", "input": "hi"}
POOL = {"x-pool-id": "narrow"}
EARLY_MS = 20  # timers of libuv begin at the start of a round of its loop
SETTINGS = {
    "PROXY_MAX_IN_FLIGHT": "1",
    "OPENAI_RESOURCE_POOL_IDS": "narrow,wide,wide,wide",
}


async def post(stack: Stack, http: httpx.AsyncClient) -> httpx.Response:
    return await http.post(f"{stack.url}/responses", json=ASK, headers=POOL)


@asynccontextmanager
async def held(stack: Stack, http: httpx.AsyncClient) -> AsyncIterator[None]:
    """Another request has the only place, until the context ends."""
    holding = stack.simulator.state.holding
    holding.hold()
    first = asyncio.create_task(post(stack, http))

    async def has_it() -> bool:
        return bool(holding.shown()["total"] == 1)

    await eventually(has_it)
    yield
    holding.release()
    assert (await first).status_code == 200


async def queued(stack: Stack, count: int) -> None:
    async def wait() -> bool:
        queues = await stack.routing.queues()
        return [queue.requests for queue in queues] == [count]

    await eventually(wait)


async def decision(stack: Stack, request_id: str) -> dict[str, Any]:
    (only,) = await stack.decisions(request_id)
    return only


async def turn(stack: Stack) -> dict[str, Any]:
    """The terminal event of a turn on a WebSocket."""
    url = f"{stack.url}/responses".replace("http", "ws", 1)
    async with connect(url, additional_headers=POOL, proxy=None) as socket:
        await socket.send(json.dumps({"type": "response.create", **ASK}))
        async for message in socket:
            event: dict[str, Any] = json.loads(message)
            if event["type"] in ("response.completed", "error"):
                return event
    raise AssertionError("no terminal event")


async def test_requests_wait_for_a_place(valkey: str, tmp_path: Path) -> None:
    async with (
        gateway_stack(valkey, tmp_path, **SETTINGS) as stack,
        httpx.AsyncClient(timeout=20) as http,
    ):
        async with held(stack, http):
            asked = asyncio.gather(post(stack, http), turn(stack))
            await queued(stack, 2)
        answers = await asked
        assert answers[0].status_code == 200
        assert answers[1]["type"] == "response.completed"
        waited = await decision(stack, answers[0].headers["x-proxy-request-id"])
        assert waited["resource_id"] == "openai-1"
        assert waited["waited_ms"] > 0
        rows = await stack.requests(3)
        assert [row["outcome"] for row in rows] == ["completed"] * 3
        for row in rows:  # time in the queue is no overhead
            waited_ms = (await decision(stack, row["id"])).get("waited_ms", 0)
            assert row["overhead_ms"] + waited_ms < row["latency_ms"] + EARLY_MS
        assert await stack.in_flight() == 0
        assert await stack.routing.queues() == []
        # The cooldown of a 429 that ends soon is waited for.
        async with held(stack, http):
            asking = asyncio.gather(post(stack, http), post(stack, http))
            await queued(stack, 2)
            await stack.fault(status=429, headers={"retry-after-ms": "400"})
        served, limited = sorted(await asking, key=lambda answer: answer.status_code)
        assert (served.status_code, limited.status_code) == (200, 429)
        waited = await decision(stack, served.headers["x-proxy-request-id"])
        assert waited["reason"] == "weighted_least_connections"
        assert waited["waited_ms"] > 0


async def test_who_waited_too_long_is_told_when_to_come_back(
    valkey: str, tmp_path: Path
) -> None:
    empty(valkey)
    settings = {**SETTINGS, "PROXY_QUEUE_MAX_SECONDS": "0.3"}
    async with (
        gateway_stack(valkey, tmp_path, **settings) as stack,
        httpx.AsyncClient(timeout=20) as http,
    ):
        async with held(stack, http):
            refused = await post(stack, http)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "at_capacity"
        assert int(refused.headers["retry-after"]) >= 1
        last = await decision(stack, refused.headers["x-proxy-request-id"])
        assert (last["resource_id"], last["reason"]) == (None, "busy")
        assert last["waited_ms"] >= 300 - EARLY_MS
        assert last["candidates"][0]["refused"] == "has its most requests in flight (1)"
        assert await stack.routing.queues() == []


async def test_a_gateway_that_crashes_leaves_no_place_and_no_gap(
    valkey: str, tmp_path: Path
) -> None:
    empty(valkey)
    async with (
        gateway_stack(valkey, tmp_path, **SETTINGS) as stack,
        httpx.AsyncClient(timeout=20) as http,
    ):
        await stack.fault(times=None, delay_ms=60_000)
        asked = [asyncio.create_task(post(stack, http)) for _ in range(2)]

        await queued(stack, 1)
        stack.gateway.kill()
        await asyncio.gather(*asked, return_exceptions=True)
        assert await stack.routing.reap(0) == 2
        rows = await stack.events("request")
        ends = {(row["outcome"], row.get("resource_id")) for row in rows}
        assert ends == {("interrupted", "openai-1"), ("interrupted", None)}

        async def forgotten() -> bool:
            await stack.routing.turns("another", ["pool:narrow"])
            return await stack.routing.queues() == []

        await eventually(forgotten)


async def test_a_lost_connection_leaves_no_place_that_nobody_takes(
    valkey: str, tmp_path: Path
) -> None:
    empty(valkey)
    async with (
        gateway_stack(valkey, tmp_path, **SETTINGS) as stack,
        httpx.AsyncClient(timeout=20) as http,
    ):
        async with held(stack, http):
            alone = asyncio.create_task(post(stack, http))
            await queued(stack, 1)
            await stack.redis.client_kill_filter(_type="normal")
        assert (await alone).status_code == 200
        answers = await asyncio.gather(*(post(stack, http) for _ in range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        assert await stack.routing.queues() == []
