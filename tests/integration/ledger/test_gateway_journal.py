"""A gateway's journal, seen from outside."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.clients.scrapes import scraped
from tests.support.databases.valkey import empty
from tests.support.processes.stack import gateway_stack
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
ASK = {"model": "gpt-5.5", "input": "hello"}


async def test_a_successor_tells_what_died_with_gateway_and_redis(
    valkey: str, tmp_path: Path
) -> None:
    async with (
        httpx.AsyncClient(timeout=20) as http,
        gateway_stack(valkey, tmp_path, PROXY_ACCESS_LOG="true") as stack,
    ):
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        ended = answer.headers["x-proxy-request-id"]
        (line,) = stack.gateway.logged("access")
        assert (line["request"], line["status"]) == (ended, 200)
        await stack.fault(timeout=True)
        cut = asyncio.create_task(http.post(f"{stack.url}/responses", json=ASK))

        async def under_way() -> bool:
            return await stack.in_flight() == 1

        await eventually(under_way)
        await asyncio.to_thread(stack.gateway.kill)
        with contextlib.suppress(httpx.HTTPError):
            await cut
    empty(valkey)
    async with gateway_stack(valkey, tmp_path) as heir:
        heir.began_ms = 0

        async def closed_books() -> list[dict[str, Any]]:
            return [e for e in await heir.events("gateway") if e["state"] == "closed"]

        async def told() -> bool:
            ends = await heir.events("request")
            return len(ends) == 2 and bool(await closed_books())

        await eventually(told)
        events = {e["id"]: e for e in await heir.events("request")}
        assert events.pop(ended)["outcome"] == "completed"
        ((_, interrupted),) = events.items()
        assert interrupted["outcome"] == "interrupted"
        assert interrupted["error_code"] == "gateway_lost"
        (closed,) = await closed_books()
        assert (closed["accepted"], closed["ended"]) == (2, 2)
        assert heir.gateway.logged("journal_taken_over", interrupted=1)
        found = await scraped(heir.origin)
        assert found.value("proxy_recovered_requests_total") == 1  # GatewayDied


async def test_without_room_on_disk_traffic_goes_on_and_readyz_says_so(
    valkey: str, tmp_path: Path
) -> None:
    (tmp_path / "journal").write_text("a file where the folder should be")
    async with (
        httpx.AsyncClient(timeout=20) as http,
        gateway_stack(valkey, tmp_path) as stack,
    ):
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 200
        ready = await http.get(f"{stack.origin}/readyz")
        assert ready.status_code == 200
        assert any(d.startswith("journal: ") for d in ready.json()["degraded"])
        await stack.request(answer.headers["x-proxy-request-id"])

        async def told() -> bool:
            found = await scraped(stack.origin)
            return found.value("proxy_degraded", part="journal") == 1

        await eventually(told)  # JournalInMemory
        assert stack.gateway.logged("degraded_began", part="journal")


async def test_a_gateway_that_ends_with_all_stored_leaves_no_journal(
    valkey: str, tmp_path: Path
) -> None:
    async with (
        httpx.AsyncClient(timeout=20) as http,
        gateway_stack(valkey, tmp_path) as stack,
    ):
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        await stack.request(answer.headers["x-proxy-request-id"])
        assert len(list((tmp_path / "journal").iterdir())) == 1

        ending = asyncio.get_running_loop().run_in_executor(None, stack.gateway.end)

        async def stored() -> bool:
            await stack.redis.xtrim("telemetry:events", maxlen=0, approximate=False)
            return ending.done()

        await eventually(stored)
    assert list((tmp_path / "journal").iterdir()) == []
