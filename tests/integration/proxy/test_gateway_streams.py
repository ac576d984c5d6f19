"""Streams through a gateway process: how they end, and what is recorded of them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from libs.common.routing.types import digest
from tests.support.databases import function_keys
from tests.support.processes.serving import serving
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.tasks import beside
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = {"model": "gpt-5.5", "input": "Say hello"}


class TestStreams:
    async def test_a_dying_upstream_ends_in_response_failed(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        faults: list[dict[str, Any]] = [{"cut_after": 3}, {"end_after": 3}]
        for fault in faults:
            await stack.fault(**fault)
            answer = await http.post(
                f"{stack.url}/responses", json={**ASK, "stream": True}
            )
            last = answer.text.strip().split("\n\n")[-1]
            kind, data = last.split("\n")
            assert kind == "event: response.failed"
            response = json.loads(data.removeprefix("data: "))["response"]
            assert response["id"].startswith("resp_")
            assert response["error"]["code"] == "server_error"
            event = await stack.request(answer.headers["x-proxy-request-id"])
            assert event["outcome"] == "failed"
        assert await stack.in_flight() == 0

    async def test_the_first_byte_does_not_wait_for_the_last(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        await stack.fault(stall_after=2)
        async with http.stream(
            "POST", f"{stack.url}/responses", json={**ASK, "stream": True}
        ) as answer:
            first = await anext(answer.aiter_bytes())
        assert b"response.created" in first

    async def test_a_client_that_leaves_closes_the_upstream(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        await stack.fault(stall_after=2)
        async with http.stream(
            "POST",
            f"{stack.url}/responses",
            json={**ASK, "stream": True},
            headers={"session-id": "left"},
        ) as answer:
            await anext(answer.aiter_bytes())
        event = await stack.request(answer.headers["x-proxy-request-id"])
        assert event["outcome"] == "cancelled"
        assert await stack.in_flight() == 0
        assert not await stack.redis.exists(function_keys.session(digest("left")))

        async def upstream_closed() -> bool:
            return bool(stack.journal()[-1]["disconnected_at"])

        await eventually(upstream_closed)

    async def test_a_client_that_leaves_before_the_head(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        await stack.fault(timeout=True)

        async def asked() -> bool:
            return bool(stack.journal())

        async with beside(http.post(f"{stack.url}/responses", json=ASK)):
            await eventually(asked)

        async def cancelled() -> list[dict[str, Any]]:
            return await stack.events("request")

        (event,) = await eventually(cancelled)
        assert event["outcome"] == "cancelled"
        assert await stack.in_flight() == 0

    async def test_leaving_after_the_terminal_event_has_completed(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        async with http.stream(
            "POST", f"{stack.url}/responses", json={**ASK, "stream": True}
        ) as answer:
            seen = b""
            async for chunk in answer.aiter_bytes():
                seen += chunk
                if b"response.completed" in seen:
                    break  # as Codex does
        event = await stack.request(answer.headers["x-proxy-request-id"])
        assert event["outcome"] == "completed"

    async def test_the_whole_requests_time_is_bounded(
        self, valkey: str, tmp_path: Path, http: httpx.AsyncClient
    ) -> None:
        async with gateway_stack(
            valkey, tmp_path, PROXY_REQUEST_TIMEOUT_SECONDS="2"
        ) as stack:
            await stack.fault(timeout=True)
            answer = await http.post(f"{stack.url}/responses", json=ASK)
            assert answer.status_code == 504
            assert answer.json()["error"]["code"] == "upstream_timeout"
            await stack.fault(stall_after=3)
            cut = await http.post(
                f"{stack.url}/responses", json={**ASK, "stream": True}
            )
            assert "response.failed" in cut.text

    async def test_a_key_whose_streams_break_off_is_blamed(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        await stack.fault(times=None, cut_after=3)
        for _ in range(8):
            await http.post(f"{stack.url}/responses", json={**ASK, "stream": True})

        async def errors() -> bool:
            return sum(s.errors for s in await stack.routing.states()) == 8

        await eventually(errors)

    async def test_a_cut_before_any_event_is_told_to_openai_python(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        await stack.fault(cut_after=0)
        async with openai.responses.stream(model="gpt-5.5", input="hi") as stream:
            kinds = [event.type async for event in stream]
        assert kinds == ["response.created", "response.failed"]

    async def test_a_dropped_background_stream_is_found_again(
        self, stack: Stack, http: httpx.AsyncClient, openai: AsyncOpenAI
    ) -> None:
        for _ in range(4):
            async with http.stream(
                "POST",
                f"{stack.url}/responses",
                json={**ASK, "stream": True, "background": True},
            ) as answer:
                lines = answer.aiter_lines()
                first, data = await anext(lines), await anext(lines)
            assert first.startswith("event: response.")
            event = await stack.request(answer.headers["x-proxy-request-id"])
            response_id = json.loads(data.removeprefix("data: "))["response"]["id"]
            assert event["response_id"] == response_id
            found = await openai.responses.retrieve(response_id)
            assert found.id == response_id

    async def test_a_client_that_does_not_read_cannot_hold_a_lease_for_ever(
        self, valkey: str, tmp_path: Path
    ) -> None:
        async def flood(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
            await r.readuntil(b"\r\n\r\n")
            w.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            while True:
                w.write(b"x" * 65_536)
                await w.drain()

        async with (
            serving(flood) as flooding,
            gateway_stack(valkey, tmp_path, PROXY_REQUEST_TIMEOUT_SECONDS="2") as stack,
        ):
            stack.environ["PROXY_UPSTREAM_BASE_URL"] = f"http://127.0.0.1:{flooding}/v1"
            await stack.publish("flooding")
            port = int(stack.origin.rsplit(":", 1)[1])
            _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")

            async def over() -> list[dict[str, Any]]:
                return await stack.events("request")

            (event,) = await eventually(over)
            assert (event["outcome"], event["error_code"]) == (
                "failed",
                "client_stalled",
            )
            assert await stack.in_flight() == 0
            assert {s.errors for s in await stack.routing.states()} == {0}
            writer.transport.abort()
