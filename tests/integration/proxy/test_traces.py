"""Traces from openai-python through a gateway to the simulated upstream, in a
collector."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import set_span_in_context
from websockets.asyncio.client import ClientConnection, connect

from tests.support.databases.valkey import empty
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually
from tests.support.upstreams.collector import (
    CLIENT,
    SERVER,
    Collector,
    Span,
    collecting,
    tracing,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL = "gpt-5.5"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
SECRET = "tell nobody about the blue whale"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(
    valkey_server: str,
    tmp_path_factory: pytest.TempPathFactory,
    collector: Collector,
) -> AsyncIterator[Stack]:
    empty(valkey_server)
    folder = tmp_path_factory.mktemp("gateway")
    environ = {
        **tracing(collector),
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=ours",
        "PROXY_ACCESS_LOG": "true",
    }
    async with gateway_stack(valkey_server, folder, **environ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def stack(standing: Stack, valkey: str) -> Stack:
    await standing.reset()
    return standing


async def post(stack: Stack, headers: Any = None, **fields: Any) -> httpx.Response:
    body = {"model": MODEL, "input": SECRET, **fields}
    async with httpx.AsyncClient(timeout=20) as http:
        return await http.post(f"{stack.url}/responses", json=body, headers=headers)


def sent_upstream(stack: Stack, name: str) -> list[list[str]]:
    """The values of a header, for each request that the upstream got."""
    return [
        [value for n, value in entry["headers"] if n.lower() == name]
        for entry in stack.journal()
        if entry["path"].endswith("/responses") and entry["method"] != "WS"
    ]


def is_within(child: Span, parent: Span) -> bool:
    same = (child.trace, child.parent) == (parent.trace, parent.id)
    began = child.began_ns >= parent.began_ns
    return same and began and child.ended_ns <= parent.ended_ns


async def test_a_request_of_openai_python(stack: Stack, collector: Collector) -> None:
    exporter = OTLPSpanExporter(f"{collector.url}/v1/traces")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    carrier: dict[str, str] = {}
    async with AsyncOpenAI(base_url=stack.url, api_key="sk-of-the-client") as openai:
        span = provider.get_tracer("test").start_span("agent")
        inject(carrier, set_span_in_context(span))
        raw = await openai.responses.with_raw_response.create(
            model=MODEL, input=SECRET, extra_headers=carrier
        )
        answer = raw.parse()
    context = span.get_span_context()
    request_id = raw.headers["x-proxy-request-id"]
    gateway, attempt = await collector.trace_of(request_id, 2)

    # client -> gateway -> attempt -> upstream
    assert gateway.trace == f"{context.trace_id:032x}"
    assert gateway.parent == f"{context.span_id:016x}"
    assert is_within(attempt, gateway)
    assert sent_upstream(stack, "traceparent") == [
        [f"00-{gateway.trace}-{attempt.id}-01"]
    ]
    assert (gateway.kind, attempt.kind) == (SERVER, CLIENT)
    assert (gateway.name, attempt.name) == ("POST /v1/responses", f"chat {MODEL}")
    assert not gateway.failed
    assert not attempt.failed

    row = await stack.request(request_id)
    assert gateway.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/responses",
        "http.response.status_code": 200,
        "url.path": "/v1/responses",
        "url.scheme": "http",
        "responses_proxy.id": request_id,
        "responses_proxy.gateway_id": row["gateway_id"],
        "responses_proxy.outcome": "completed",
        "responses_proxy.attempts": 1,
        "responses_proxy.transport": "http",
        "responses_proxy.overhead_ms": row["overhead_ms"],
    }
    assert answer.usage is not None
    assert attempt.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": answer.model,
        "gen_ai.response.id": answer.id,
        "gen_ai.usage.input_tokens": answer.usage.input_tokens,
        "gen_ai.usage.output_tokens": answer.usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": row.get("cached_tokens"),
        "gen_ai.usage.reasoning.output_tokens": row.get("reasoning_tokens"),
        "openai.api.type": "responses",
        "openai.response.service_tier": row["service_tier"],
        "http.request.method": "POST",
        "http.route": "/v1/responses",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": stack.simulator.port,
        "responses_proxy.resource_id": row["resource_id"],
        "responses_proxy.attempt": 1,
        "responses_proxy.reason": "weighted_least_connections",
    }
    resource = gateway.resource
    assert resource["service.name"] == "responses-proxy-gateway"
    assert resource["service.instance.id"] == row["gateway_id"]
    assert resource["deployment.environment.name"] == "test"
    assert {"x-tenant": "ours"}.items() <= collector.headers[-1].items()


async def test_a_stream(stack: Stack, collector: Collector) -> None:
    answer = await post(stack, {"traceparent": TRACEPARENT}, stream=True)
    request_id = answer.headers["x-proxy-request-id"]
    gateway, attempt = await collector.trace_of(request_id, 2)
    assert (gateway.trace, gateway.parent) == (TRACE, PARENT)
    assert is_within(attempt, gateway)
    row = await stack.request(request_id)
    assert gateway.attributes["responses_proxy.transport"] == "sse"
    assert gateway.attributes["responses_proxy.first_token_ms"] == row["first_token_ms"]
    assert attempt.attributes["gen_ai.usage.output_tokens"] == row["output_tokens"]


async def test_each_attempt_is_a_span_and_its_own_parent_upstream(
    stack: Stack, collector: Collector
) -> None:
    await stack.fault(status=500)
    answer = await post(stack, {"traceparent": TRACEPARENT})
    assert answer.status_code == 200
    request_id = answer.headers["x-proxy-request-id"]
    gateway, first, second = await collector.trace_of(request_id, 3)
    assert sent_upstream(stack, "traceparent") == [
        [f"00-{TRACE}-{attempt.id}-01"] for attempt in (first, second)
    ]
    assert is_within(first, gateway)
    assert is_within(second, gateway)
    assert first.ended_ns <= second.began_ns
    assert (first.failed, second.failed, gateway.failed) == (True, False, False)
    assert first.attributes["error.type"] == "server_error"
    assert first.attributes["http.response.status_code"] == 500
    assert "gen_ai.usage.input_tokens" not in first.attributes
    assert gateway.attributes["responses_proxy.attempts"] == 2
    resources = [a.attributes["responses_proxy.resource_id"] for a in (first, second)]
    assert len(set(resources)) == 2


async def test_the_turns_of_a_socket(stack: Stack, collector: Collector) -> None:
    async with socket(stack, traceparent=TRACEPARENT, tracestate="a=1") as opened:
        ids = [await turn(opened), await turn(opened)]
    first, second = await eventually_rows(stack, ids)
    # The upgrade and the first turn have the same request id.
    upgrade, turn_1, *attempts = sorted(
        await collector.trace_of(first["id"], 4), key=lambda span: span.kind
    )
    assert upgrade.attributes["http.response.status_code"] == 101
    assert turn_1.name == "WS /v1/responses"
    assert {upgrade.parent, turn_1.parent} == {PARENT}
    (dialed,) = [a for a in attempts if a.parent == upgrade.id]
    assert sent_upstream_by_upgrade(stack) == [[f"00-{TRACE}-{dialed.id}-01"]]
    assert dialed.state == upgrade.state == "a=1"
    turn_2, attempt_2 = await collector.trace_of(second["id"], 2)
    assert (turn_2.trace, turn_2.parent) == (TRACE, PARENT)
    assert attempt_2.attributes["gen_ai.response.id"] == second["response_id"]
    (attempt_1,) = [a for a in attempts if a.parent == turn_1.id]
    for attempt, its_turn in ((attempt_1, turn_1), (attempt_2, turn_2)):
        assert is_within(attempt, its_turn)
        assert attempt.name == f"chat {MODEL}"


@asynccontextmanager
async def socket(stack: Stack, **headers: str) -> AsyncIterator[ClientConnection]:
    url = f"{stack.url.replace('http', 'ws', 1)}/responses"
    async with connect(url, additional_headers=headers, proxy=None) as opened:
        yield opened


async def turn(opened: ClientConnection) -> str:
    """Ask for a response. Returns its id."""
    frame = {"type": "response.create", "model": MODEL, "input": SECRET}
    await opened.send(json.dumps(frame))
    while True:
        event = json.loads(await opened.recv())
        if event["type"] == "response.completed":
            return str(event["response"]["id"])


async def eventually_rows(stack: Stack, ids: list[str]) -> list[dict[str, Any]]:
    async def rows() -> list[dict[str, Any]] | None:
        by_id = {e.get("response_id"): e for e in await stack.events("request")}
        return [by_id[id_] for id_ in ids] if set(ids) <= set(by_id) else None

    found = await eventually(rows)
    assert found is not None
    return found


def sent_upstream_by_upgrade(stack: Stack) -> list[list[str]]:
    return [
        [value for n, value in entry["headers"] if n.lower() == "traceparent"]
        for entry in stack.journal()
        if entry["method"] == "GET"
    ]


@pytest.mark.parametrize(
    "invalid",
    [
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01" + "x" * 2_000,
    ],
)
async def test_an_invalid_parent_is_ignored(
    stack: Stack, collector: Collector, invalid: str
) -> None:
    answer = await post(stack, {"traceparent": invalid, "tracestate": "a=1"})
    request_id = answer.headers["x-proxy-request-id"]
    gateway, attempt = await collector.trace_of(request_id, 2)
    assert gateway.parent == ""
    assert TRACE not in gateway.trace
    assert sent_upstream(stack, "traceparent") == [
        [f"00-{gateway.trace}-{attempt.id}-01"]
    ]
    assert sent_upstream(stack, "tracestate") == [[]]


async def test_what_the_client_does_not_sample_is_not_exported(
    stack: Stack, collector: Collector
) -> None:
    """parentbased_always_on is the default sampler."""
    answer = await post(stack, {"traceparent": f"00-{TRACE}-{PARENT}-00"})
    ((sent,),) = sent_upstream(stack, "traceparent")
    assert sent.startswith(f"00-{TRACE}-")
    assert sent.endswith("-00")
    assert PARENT not in sent
    # What comes after it is there, so it will not come.
    later = (await post(stack)).headers["x-proxy-request-id"]
    await collector.trace_of(later, 2)
    assert collector.of(answer.headers["x-proxy-request-id"]) == []


async def test_a_refused_request_has_no_attempt(
    stack: Stack, collector: Collector
) -> None:
    answer = await post(stack, {"x-pool-id": "nowhere"})
    assert answer.status_code == 400
    (gateway,) = await collector.trace_of(answer.headers["x-proxy-request-id"], 1)
    assert gateway.attributes["error.type"] == "unknown_pool"
    assert not gateway.failed  # the client's fault


async def test_no_body_and_no_key_is_exported(
    stack: Stack, collector: Collector
) -> None:
    headers = {"authorization": "Bearer sk-of-the-client", "x-session-id": "whales-1"}
    answer = await post(stack, headers, prompt_cache_key="whales-2", user="user-1")
    spans = await collector.trace_of(answer.headers["x-proxy-request-id"], 2)
    text = repr(spans)
    secrets = [SECRET, "sk-", "whales", "user-1", "Bearer"]
    assert [secret for secret in secrets if secret in text] == []


async def test_a_collector_that_is_away_is_logged_and_harms_nobody(
    stack: Stack, collector: Collector
) -> None:
    collector.status = 401
    try:
        answer = await post(stack)
        assert answer.status_code == 200
        await eventually(lambda: _told(stack))
    finally:
        collector.status = 200
    later = (await post(stack)).headers["x-proxy-request-id"]
    await collector.trace_of(later, 2)


async def _told(stack: Stack) -> bool:
    lines = stack.gateway.log.read_text().splitlines()
    told = [json.loads(li) for li in lines if "traces_failed" in li]
    return any("401" in line["cause"] for line in told)


async def test_without_a_collector_the_header_passes_unchanged(
    valkey: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with AsyncExitStack() as until:
        folder = tmp_path_factory.mktemp("off")
        started = gateway_stack(
            valkey,
            folder,
            OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
            OTEL_SDK_DISABLED="true",
        )
        stack = await until.enter_async_context(started)
        await post(stack, {"traceparent": "anything at all", "tracestate": "x"})
        assert sent_upstream(stack, "traceparent") == [["anything at all"]]
        assert sent_upstream(stack, "tracestate") == [["x"]]
