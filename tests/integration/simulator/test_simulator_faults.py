"""The simulated upstream: scripted faults, holding, the journal, the process."""

import asyncio
import base64
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from libs.simulator.server import RunningSimulator
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulated import (
    MODEL,
    RESPONSES,
    bearer,
    create,
    held,
    journal,
    script,
    streamed,
)

pytest_plugins = ["tests.support.upstreams.simulated_clients"]
pytestmark = pytest.mark.asyncio


async def test_a_status_fault_is_met_as_often_as_told(
    http: httpx.AsyncClient, a1: AsyncOpenAI
) -> None:
    await script(http, {"status": 429, "headers": {"retry-after": "2"}}, times=1)
    with pytest.raises(openai.RateLimitError) as limited:
        await a1.responses.create(model=MODEL, input="x")
    assert limited.value.code == "rate_limit_exceeded"
    assert limited.value.response.headers["retry-after"] == "2"
    assert (await a1.responses.create(model=MODEL, input="x")).status == "completed"


@pytest.mark.parametrize(
    ("fault", "content_type", "body"),
    [
        ({"status": 502, "body": "<html>"}, "text/html", b"<html>"),
        ({"status": 500, "body": {"a": 1}}, "application/json", b'{"a":1}'),
    ],
)
async def test_a_status_fault_may_bring_its_own_body(
    http: httpx.AsyncClient, fault: dict[str, Any], content_type: str, body: bytes
) -> None:
    await script(http, fault)
    answer = await http.post(RESPONSES, json=create())
    assert answer.headers["content-type"] == content_type
    assert answer.content == body


async def test_a_fault_is_met_by_its_key_model_and_path_only(
    http: httpx.AsyncClient, a2: AsyncOpenAI
) -> None:
    await script(
        http,
        {"status": 503},
        key="sk-a1",
        match={"path": RESPONSES, "model": "gpt-5.4"},
    )
    assert (await http.post(RESPONSES, json=create())).status_code == 200
    assert (await http.get("/v1/models")).status_code == 200
    assert (await a2.responses.create(model="gpt-5.4", input="x")).status == "completed"
    answer = await http.post(RESPONSES, json=create(model="gpt-5.4"))
    assert answer.json()["error"]["code"] == "server_is_overloaded"
    cleared = await http.delete("/__sim/faults")
    assert cleared.json() == {"faults": []}


async def test_a_revoked_key_is_refused_until_cleared(http: httpx.AsyncClient) -> None:
    await script(http, {"kind": "revoked"}, key="sk-a1")
    for _ in range(2):
        answer = await http.get("/v1/models")
        assert answer.json()["error"]["code"] == "invalid_api_key"
    await http.delete("/__sim/faults")
    assert (await http.get("/v1/models")).status_code == 200


async def test_a_mistake_in_a_script_is_named(http: httpx.AsyncClient) -> None:
    answer = await http.post("/__sim/faults", json={"fault": {"explode": True}})
    assert answer.status_code == 400
    assert "explode" in answer.text


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"reset": True}, httpx.ReadError),
        ({"timeout": 0.02}, httpx.ReadError),
        ({"timeout": True}, httpx.ReadTimeout),
        ({"garbage": True}, httpx.RemoteProtocolError),
        ({"wrong_length": True}, httpx.RemoteProtocolError),
        ({"delay_ms": 5000}, httpx.ReadTimeout),
    ],
)
async def test_a_connection_breaks_before_the_answer_is_whole(
    http: httpx.AsyncClient, fault: dict[str, Any], error: type[Exception]
) -> None:
    await script(http, fault)
    silent = error is httpx.ReadTimeout
    timeout = httpx.Timeout(60, read=0.3 if silent else 60)
    with pytest.raises(error):
        await http.post(RESPONSES, json=create(), timeout=timeout)


async def test_a_reset_is_a_tcp_reset(
    simulator: RunningSimulator, http: httpx.AsyncClient
) -> None:
    await script(http, {"reset": True})
    reader, writer = await asyncio.open_connection("127.0.0.1", simulator.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n")
    writer.write(b"authorization: Bearer sk-a1\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


@pytest.mark.parametrize(
    ("fault", "count", "error"),
    [
        ({"cut_after": 0}, 0, httpx.ReadError),
        ({"cut_after": 3}, 3, httpx.ReadError),
        ({"stall_after": 2}, 2, httpx.ReadTimeout),
        ({"end_after": 4}, 4, None),
        ({"event_gap_ms": 5, "end_after": 3}, 3, None),
    ],
)
async def test_a_stream_breaks_after_some_events(
    http: httpx.AsyncClient,
    simulator: RunningSimulator,
    fault: dict[str, Any],
    count: int,
    error: type[Exception] | None,
) -> None:
    await script(http, fault)
    types, met = await streamed(http, 2 if error is httpx.ReadTimeout else 60)
    assert len(types) == count
    assert type(met) is (error or type(None))
    # A response that never completed was never stored.
    assert len(simulator.state.storage) == 0


@pytest.mark.parametrize(
    ("fault", "last"),
    [
        ({"failed_event": "rate_limit_exceeded"}, "response.failed"),
        ({"incomplete": "content_filter"}, "response.incomplete"),
        ({"error_event": {"code": "server_error", "nested": True}}, "error"),
        ({"error_event": True}, "error"),
    ],
)
async def test_a_stream_ends_otherwise_than_completed(
    http: httpx.AsyncClient, fault: dict[str, Any], last: str
) -> None:
    await script(http, fault)
    types, met = await streamed(http)
    assert met is None
    assert types[-1] == last
    assert sum(kind.startswith("response.completed") for kind in types) == 0


async def test_a_whole_answer_can_fail_too(
    http: httpx.AsyncClient, a1: AsyncOpenAI
) -> None:
    await script(http, {"failed_event": "server_error"}, times=1)
    await script(http, {"incomplete": True}, times=1)
    await script(http, {"error_event": True}, times=1)
    assert (await a1.responses.create(model=MODEL, input="x")).status == "failed"
    assert (await a1.responses.create(model=MODEL, input="x")).status == "incomplete"
    with pytest.raises(openai.InternalServerError):
        await a1.responses.create(model=MODEL, input="x")


async def test_an_answer_is_compressed_for_those_who_accept_it(
    http: httpx.AsyncClient,
) -> None:
    await script(http, {"compress": True})
    answer = await http.post(RESPONSES, json=create())
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["status"] == "completed"
    plain = await http.post(
        RESPONSES, json=create(), headers={"accept-encoding": "identity"}
    )
    assert "content-encoding" not in plain.headers
    stream = await http.post(RESPONSES, json=create(stream=True))
    assert stream.headers["content-encoding"] == "gzip"
    assert "event: response.completed" in stream.text


async def test_held_answers_wait_until_released(
    http: httpx.AsyncClient, a1: AsyncOpenAI, a2: AsyncOpenAI
) -> None:
    await http.post("/__sim/hold")
    clients = [a1, a1, a2]
    waiting = [
        asyncio.create_task(each.responses.create(model=MODEL, input="x"))
        for each in clients
    ]
    await eventually(lambda: held(http, 3))
    assert (await http.get("/__sim/held")).json()["waiting"] == {"sk-a1": 2, "sk-a2": 1}
    waiting.pop(0).cancel()
    await eventually(lambda: held(http, 2))
    await http.post("/__sim/release")
    assert all(made.status == "completed" for made in await asyncio.gather(*waiting))
    assert (await http.get("/__sim/held")).json() == {
        "held": [],
        "waiting": {},
        "total": 0,
    }


async def test_one_key_is_held_alone(
    http: httpx.AsyncClient, a1: AsyncOpenAI, a2: AsyncOpenAI
) -> None:
    await http.post("/__sim/hold", json={"key": "sk-a1"})
    assert (await a2.responses.create(model=MODEL, input="x")).status == "completed"
    waiting = asyncio.create_task(a1.responses.create(model=MODEL, input="x"))
    await eventually(lambda: held(http, 1))
    await http.post("/__sim/release", json={"key": "sk-a1"})
    assert (await waiting).status == "completed"


async def test_the_journal_tells_what_arrived_and_what_was_answered(
    http: httpx.AsyncClient,
) -> None:
    await http.post("/__sim/settings", json={"keep_bodies": True})
    body = b'{"model":"gpt-5.5","input":"x"}'
    answer = await http.post(
        f"{RESPONSES}?beta=true", content=body, headers=[("X-One", "1"), ("X-One", "2")]
    )
    (entry,) = await journal(http, limit=1, bodies="true")
    assert (entry["key"], entry["account"]) == ("sk-a1", "acct-a")
    assert (entry["method"], entry["path"]) == ("POST", RESPONSES)
    assert (entry["query"], entry["status"]) == ("beta=true", 200)
    assert [pair for pair in entry["headers"] if pair[0] == "X-One"] == [
        ["X-One", "1"],
        ["X-One", "2"],
    ]
    assert base64.b64decode(entry["body"]) == body
    assert base64.b64decode(entry["response_body"]) == answer.content
    assert entry["response_sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert entry["response_length"] == len(answer.content)
    assert entry["response_id"] == answer.json()["id"]
    assert entry["disconnected_at"] is None
    assert (await http.delete("/__sim/journal")).json() == {"entries": []}
    assert await journal(http) == []
    counts = (await http.get("/__sim/stats")).json()["keys"]["sk-a1"]
    assert (counts["arrived"], counts["open"], counts["status_200"]) == (1, 0, 1)


async def test_the_journal_notes_a_client_that_left(http: httpx.AsyncClient) -> None:
    await script(http, {"stall_after": 2})
    await streamed(http, 1)

    async def noted() -> bool:
        (entry,) = await journal(http, limit=1)
        return entry["disconnected_at"] is not None

    await eventually(noted)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_announces_itself_and_ends_when_told(
    tmp_path: Path, end: signal.Signals
) -> None:
    announced = tmp_path / "url"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "libs.simulator", "--port", "0", "--announce", str(announced)),
        *("--keys", "sk-x=acct-x", "--any-key"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ,
    )
    assert process.stdout
    line = (await process.stdout.readline()).decode()
    url = announced.read_text().strip()
    assert json.loads(line)["message"] == f"simulator listening on {url}"
    async with httpx.AsyncClient(headers=bearer("anything"), timeout=60) as client:
        assert (await client.get(url.removesuffix("/v1") + "/healthz")).json() == {
            "status": "ok"
        }
        # A stalled answer does not delay the shutdown.
        base = url.removesuffix("/v1")
        await client.post(f"{base}/__sim/faults", json={"fault": {"stall_after": 1}})
        async with client.stream(
            "POST", f"{url}/responses", json=create(stream=True)
        ) as answer:
            assert answer.headers["openai-organization"].startswith("acct-")
            process.send_signal(end)
            async with asyncio.timeout(20):  # it would stall forever
                assert await process.wait() == 0
