"""The gateway as a process, in front of the simulated upstream: what clients get, what
the upstream gets, and what the ledger records."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import zstandard
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from libs.common.redis import keys
from libs.common.routing.types import digest
from tests.support.clients.scrapes import scraped
from tests.support.databases.valkey import running_valkey
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.tasks import beside
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = {"model": "gpt-5.5", "input": "Say hello"}


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def openai(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=stack.url, api_key="client", max_retries=0
    ) as client:
        yield client


class TestOpenAiPython:
    async def test_create_retrieve_list_and_delete(self, openai: AsyncOpenAI) -> None:
        made = await openai.responses.create(model="gpt-5.5", input="hi")
        assert "Simulated" in made.output_text
        found = await openai.responses.retrieve(made.id)
        assert found.id == made.id
        items = await openai.responses.input_items.list(made.id)
        assert items.data[0].type == "message"
        await openai.responses.delete(made.id)
        with pytest.raises(NotFoundError):
            await openai.responses.retrieve(made.id)

    async def test_stream(self, openai: AsyncOpenAI) -> None:
        async with openai.responses.stream(model="gpt-5.5", input="hi") as stream:
            final = await stream.get_final_response()
        assert final.usage is not None
        assert final.usage.total_tokens > 0

    async def test_background_and_cancel(self, openai: AsyncOpenAI) -> None:
        job = await openai.responses.create(
            model="gpt-5.5",
            input="hi",
            background=True,
            metadata={"simulate_duration_ms": "60000"},
        )
        assert job.status in ("queued", "in_progress")
        cancelled = await openai.responses.cancel(job.id)
        assert cancelled.status == "cancelled"

    async def test_conversations_stay_on_their_account(
        self, openai: AsyncOpenAI
    ) -> None:
        conversation = await openai.conversations.create()
        for _ in range(6):
            await openai.responses.create(
                model="gpt-5.5", input="hi", conversation=conversation.id
            )
        items = await openai.conversations.items.list(conversation.id)
        assert len(items.data) >= 12

    async def test_chains_stay_on_their_account(self, openai: AsyncOpenAI) -> None:
        previous = None
        for _ in range(8):
            answer = await openai.responses.create(
                model="gpt-5.5", input="hi", previous_response_id=previous
            )
            previous = answer.id

    async def test_an_unknown_id_gets_the_upstreams_own_error(
        self, openai: AsyncOpenAI
    ) -> None:
        with pytest.raises(BadRequestError) as refused:
            await openai.responses.create(
                model="gpt-5.5", input="hi", previous_response_id="resp_nobody"
            )
        assert refused.value.code == "previous_response_not_found"


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
async def test_bytes_pass_unchanged_both_ways(
    stack: Stack, http: httpx.AsyncClient, stream: bool
) -> None:
    body = json.dumps(
        {**ASK, "stream": stream, "metadata": {"é": "ü"}}, indent=3
    ).encode()
    answer = await http.post(f"{stack.url}/responses", content=body)
    assert answer.status_code == 200
    entry = stack.journal()[-1]
    assert entry["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert entry["response_sha256"] == hashlib.sha256(answer.content).hexdigest()


async def test_a_zstd_body_passes_and_is_read_for_its_hints(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    packed = zstandard.compress(json.dumps({**ASK, "prompt_cache_key": "k"}).encode())
    answer = await http.post(
        f"{stack.url}/responses",
        content=packed,
        headers={"content-encoding": "zstd", "content-type": "application/json"},
    )
    assert answer.status_code == 200
    assert stack.journal()[-1]["body_sha256"] == hashlib.sha256(packed).hexdigest()
    event = await stack.request(answer.headers["x-proxy-request-id"])
    assert (event["session_id"], event["model"]) == ("k", "gpt-5.5")


async def test_the_ledger_says_what_happened(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    answer = await http.post(
        f"{stack.url}/responses",
        json={**ASK, "stream": True},
        headers={"x-session-id": "s-1", "x-proxy-session-name": "nightly"},
    )
    ours = {k: v for k, v in answer.headers.items() if k.startswith("x-proxy-")}
    assert ours["x-proxy-reason"] == "weighted_least_connections"
    assert ours["x-proxy-attempts"] == "1"
    event = await stack.request(ours["x-proxy-request-id"])
    assert event["resource_id"] == ours["x-proxy-resource-id"]
    assert event["session_id"] == "s-1"
    assert event["session_name"] == "nightly"
    assert event["transport"] == "sse"
    assert event["outcome"] == "completed"
    assert event["usage_state"] == "final"
    assert event["response_id"].startswith("resp_")
    assert event["response_bytes"] == len(answer.content)
    assert 0 < event["first_token_ms"] <= event["latency_ms"]
    (decision,) = await stack.decisions(ours["x-proxy-request-id"])
    assert len(decision["candidates"]) == 4
    assert await stack.in_flight() == 0


async def test_headers_hide_the_account_and_the_clients_credentials(
    stack: Stack, http: httpx.AsyncClient
) -> None:
    answer = await http.post(
        f"{stack.url}/responses",
        json=ASK,
        headers={
            "authorization": "Bearer client-secret",
            "cookie": "a=b",
            "x-proxy-session-id": "s",
            "x-codex-window-id": "w",
        },
    )
    assert not {"set-cookie", "openai-organization", "openai-project"} & set(
        answer.headers
    )
    assert answer.headers["x-request-id"].startswith("req_")
    sent = dict(stack.journal()[-1]["headers"])
    names = {name.lower() for name in sent}
    assert "x-codex-window-id" in names
    assert not {"cookie", "x-proxy-session-id"} & names
    assert "client-secret" not in json.dumps(sent)


async def test_secrets_never_reach_redis(stack: Stack, http: httpx.AsyncClient) -> None:
    await http.post(
        f"{stack.url}/responses", json=ASK, headers={"authorization": "Bearer c-secret"}
    )
    dump = b""
    for key in await stack.redis.keys("*"):
        dump += await stack.redis.dump(key) or b""
    log = stack.gateway.log.read_bytes()
    for secret in (b"sk-sim", b"c-secret"):
        assert secret not in dump
        assert secret not in log


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


class TestFailover:
    @pytest.mark.parametrize(
        "fault",
        [
            {"status": 429, "headers": {"retry-after": "7"}},
            {"status": 500},
            {"status": 502},
            {"status": 503},
            {"status": 504},
            {"status": 529},
            {"status": 401},
            {"status": 403},
            {"garbage": True},
        ],
        ids=str,
    )
    async def test_goes_elsewhere_before_the_first_byte(
        self, stack: Stack, http: httpx.AsyncClient, fault: dict[str, Any]
    ) -> None:
        await stack.fault(**fault)
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 200
        assert answer.headers["x-proxy-attempts"] == "2"
        request_id = answer.headers["x-proxy-request-id"]
        event = await stack.request(request_id)
        assert (event["outcome"], event["attempts"]) == ("completed", 2)
        first, second = await stack.decisions(request_id)
        assert first["resource_id"] != second["resource_id"]
        assert await stack.in_flight() == 0

    @pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
    async def test_client_errors_pass_at_once(
        self, stack: Stack, http: httpx.AsyncClient, status: int
    ) -> None:
        await stack.fault(status=status)
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == status
        assert answer.headers["x-proxy-attempts"] == "1"
        event = await stack.request(answer.headers["x-proxy-request-id"])
        assert (event["outcome"], event["status_code"]) == ("failed", status)
        assert {s.errors for s in await stack.routing.states()} == {0}

    async def test_the_last_failure_passes_as_the_upstream_said_it(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        await stack.fault(times=None, status=503, code="server_is_overloaded")
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "server_is_overloaded"
        assert answer.headers["x-proxy-attempts"] == "3"
        event = await stack.request(answer.headers["x-proxy-request-id"])
        assert event["error_code"] == "server_is_overloaded"
        assert await stack.in_flight() == 0

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [({"retry-after": "7"}, "7"), ({"retry-after": "1.5"}, "2"), ({}, "30")],
        ids=str,
    )
    async def test_every_429_leaves_with_whole_seconds(
        self,
        stack: Stack,
        http: httpx.AsyncClient,
        headers: dict[str, str],
        expected: str,
    ) -> None:
        await stack.fault(times=None, status=429, headers=headers)
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= int(expected)

    async def test_nobody_there_is_502(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        stack.environ["PROXY_UPSTREAM_BASE_URL"] = f"http://127.0.0.1:{free_port()}/v1"
        await stack.publish("v2")
        answer = await http.post(f"{stack.url}/responses", json=ASK)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "upstream_unreachable"

    async def test_a_base_url_without_v1_and_a_wrong_length(
        self, stack: Stack, http: httpx.AsyncClient
    ) -> None:
        await stack.fault(times=None, wrong_length=True)
        with pytest.raises(httpx.RemoteProtocolError):
            await http.post(f"{stack.url}/responses", json=ASK)


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
        assert not await stack.redis.exists(keys.session(digest("left")))

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
            with suppress(OSError):
                while True:
                    w.write(b"x" * 65_536)
                    await w.drain()
            w.close()

        async with (
            await asyncio.start_server(flood, "127.0.0.1", 0) as server,
            gateway_stack(valkey, tmp_path, PROXY_REQUEST_TIMEOUT_SECONDS="2") as stack,
        ):
            flooding = server.sockets[0].getsockname()[1]
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
            await w.drain()
            w.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            stack.environ["PROXY_UPSTREAM_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
            await stack.publish("odd")
            got = await http.post(f"{stack.url}/responses", json=ASK)
            assert (got.status_code, got.content) == (200, answer)
            event = await stack.request(got.headers["x-proxy-request-id"])
        assert event["outcome"] == "completed"
        assert await stack.in_flight() == 0


class TestRedisThatRefuses:
    async def test_the_gateway_goes_on(
        self, tmp_path: Path, http: httpx.AsyncClient
    ) -> None:
        """Redis is full, or a replica after a failover: it answers with errors only."""
        with running_valkey(tmp_path) as url:
            async with gateway_stack(url, tmp_path) as stack:
                await stack.redis.config_set("maxmemory", "1")
                answers = [
                    await http.post(f"{stack.url}/responses", json=ASK)
                    for _ in range(5)
                ]
                assert {answer.status_code for answer in answers} == {200}
                await stack.redis.config_set("maxmemory", "0")

                async def caught_up() -> bool:
                    return len(await stack.events("request")) == 5

                await eventually(caught_up)
                assert stack.gateway.alive


class TestWithoutRedis:
    async def test_traffic_goes_on_and_the_ledger_catches_up(
        self, tmp_path: Path, http: httpx.AsyncClient
    ) -> None:
        port = free_port()
        with running_valkey(tmp_path, port) as url:
            async with gateway_stack(url, tmp_path) as stack:
                await self._without(stack, tmp_path, port, http)

    async def _without(
        self, stack: Stack, folder: Path, port: int, http: httpx.AsyncClient
    ) -> None:
        await stack.redis.shutdown(nosave=True)
        answers = [
            await http.post(f"{stack.url}/responses", json=ASK) for _ in range(8)
        ]
        assert {answer.status_code for answer in answers} == {200}
        assert len({a.headers["x-proxy-resource-id"] for a in answers}) > 1
        ready = await http.get(f"{stack.origin}/readyz")
        assert ready.status_code == 200
        assert "redis" in ready.json()["degraded"][0]

        async def told() -> bool:
            found = await scraped(stack.origin)
            impaired = found.value("proxy_degraded", part="redis")
            return (found.value("proxy_redis_up"), impaired) == (0, 1)

        await eventually(told)  # RedisDown
        assert (await scraped(stack.origin)).value("proxy_outbox_events") > 0
        assert stack.gateway.logged("degraded_began", part="redis")
        with running_valkey(folder, port):
            await stack.publish()

            async def caught_up() -> bool:
                return len(await stack.events("request")) >= 8

            await eventually(caught_up)
            ids = {e["id"] for e in await stack.events("request")}
            assert ids == {a.headers["x-proxy-request-id"] for a in answers}
            decisions = await stack.events("decision")
            assert {d["degraded"] for d in decisions} == {True}
            again = await http.post(f"{stack.url}/responses", json=ASK)
            (decision,) = await stack.decisions(again.headers["x-proxy-request-id"])
            assert "degraded" not in decision

            async def over() -> bool:
                return bool(stack.gateway.logged("degraded_ended", part="redis"))

            await eventually(over)


async def test_sigterm_drains_and_leaves_no_lease(
    valkey: str, tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with gateway_stack(valkey, tmp_path) as stack:
        await _drain(stack, http)


async def _drain(stack: Stack, http: httpx.AsyncClient) -> None:
    await stack.fault(event_gap_ms=30)
    async with http.stream(
        "POST", f"{stack.url}/responses", json={**ASK, "stream": True}
    ) as answer:
        body = answer.aiter_bytes()
        seen = await anext(body)
        process: Process = stack.gateway
        ending = asyncio.get_running_loop().run_in_executor(None, process.end)
        async for chunk in body:
            seen += chunk
    await ending
    assert b"response.completed" in seen
    event = await stack.request(answer.headers["x-proxy-request-id"])
    assert event["outcome"] == "completed"
    assert await stack.in_flight() == 0
