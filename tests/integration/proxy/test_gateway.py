"""The gateway as a process, in front of the simulated upstream: what clients get, what
the upstream gets, and what the ledger records."""

import asyncio
import hashlib
import json
from pathlib import Path

import httpx
import pytest
import zstandard
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from tests.support.processes.processes import Process
from tests.support.processes.stack import Stack, gateway_stack

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
ASK = {"model": "gpt-5.5", "input": "Say hello"}


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
