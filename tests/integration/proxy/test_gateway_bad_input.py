"""What a gateway process does with bad input, and with odd answers of the upstream."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.clients.scrapes import scraped
from tests.support.processes.serving import serving
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = {"model": "gpt-5.5", "input": "Say hello"}


class TestBadInput:
    async def test_a_body_that_is_no_json_is_forwarded(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        answer = await http.post(f"{stack.url}/responses", content=b"\xff\x00{")
        assert answer.status_code == 400
        assert answer.headers["x-request-id"].startswith("req_")

    async def test_a_body_over_the_limit_is_refused_before_it_is_read(
        self, valkey: str, tmp_path: Path, http: httpx.AsyncClient
    ) -> None:
        async with gateway_stack(valkey, tmp_path, PROXY_MAX_BODY_BYTES="1000") as s:
            announced = await http.post(f"{s.url}/responses", content=b"x" * 1001)

            async def endless() -> AsyncIterator[bytes]:
                for _ in range(2_000):
                    yield b"x" * 1000

            chunked = await http.post(f"{s.url}/responses", content=endless())
            assert s.journal() == []
        for answer in (announced, chunked):
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "body_too_large"

    async def test_no_resources_names_the_variable(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        stack.environ["OPENAI_API_KEYS"] = ""
        stack.environ["OPENAI_RESOURCE_ACCOUNT_IDS"] = ""
        await stack.publish("v2")
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "no_resources_configured"
        assert "OPENAI_API_KEY" in answer.json()["error"]["message"]

    async def test_an_unknown_pool_names_the_pools(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        answer = await http.post(
            f"{stack.url}/responses", json={**ASK, "metadata": {"pool_id": "nope"}}
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "unknown_pool"
        assert "openai-default" in answer.json()["error"]["message"]

    @pytest.mark.parametrize(
        "path", ["/v1/../admin", "/v1/%2e%2e/admin", "/v1/files/a%2fb"]
    )
    async def test_paths_never_leave_v1(self, stack: Stack, path: str) -> None:
        port = stack.origin.rsplit(":", 1)[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        status = await reader.readline()
        writer.close()
        assert b" 404 " in status
        assert stack.journal() == []

    async def test_an_unknown_route_says_where_the_api_is(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        answer = await http.get(f"{stack.origin}/v2/responses")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "unknown_route"

    async def test_without_a_router_admin_answers_503(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        answer = await http.get(f"{stack.origin}/admin/state")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "router_unreachable"

        async def told() -> bool:
            found = await scraped(stack.origin)
            return found.value("proxy_degraded", part="router") == 1

        await eventually(told)  # RouterUnreachable
        assert stack.gateway.logged("degraded_began", part="router")


class TestOddAnswers:
    """An upstream that speaks HTTP but sends invalid content."""

    @pytest.mark.parametrize(
        "answer",
        [
            b'{"id":"resp_\xff","object":"response"}',
            b'{"id":' + b"[" * 50_000,
            b"",
        ],
        ids=["bad UTF-8", "deep", "empty"],
    )
    async def test_the_books_are_closed_on_it(
        self, stack: Stack, http: httpx.AsyncClient, answer: bytes
    ) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        whole = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(answer), answer)

        async def serve(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
            await r.readuntil(b"\r\n\r\n")
            w.write(whole)

        async with serving(serve) as port:
            stack.environ["PROXY_UPSTREAM_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
            await stack.publish("odd")
            got = await http.post(f"{stack.url}/responses", json=ASK)
            assert (got.status_code, got.content) == (200, answer)
            event = await stack.request(got.headers["x-proxy-request-id"])
        assert event["outcome"] == "completed"
        assert await stack.in_flight() == 0
