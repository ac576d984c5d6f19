"""The simulated upstream: creating, retrieving, chaining and refusing responses."""

import asyncio
import gzip
import hashlib
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest
import zstandard
from openai import AsyncOpenAI

from tests.support.upstreams.simulated import (
    MODEL,
    RESPONSES,
    bearer,
    create,
    events_in,
    journal,
)
from tests.support.upstreams.simulator import Simulator

pytest_plugins = ["tests.support.upstreams.simulated_clients"]
pytestmark = pytest.mark.asyncio

REASONING: Any = ["reasoning.encrypted_content"]
EXEC: Any = {
    "type": "function",
    "name": "exec_command",
    "strict": False,
    "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}},
}


async def test_a_response_is_created_shown_listed_and_deleted(a1: AsyncOpenAI) -> None:
    made = await a1.responses.create(model=MODEL, input="hello", metadata={"a": "b"})
    assert made.output_text == "Simulated answer from acct-a: hello"
    assert made.metadata == {"a": "b"}
    assert await a1.responses.retrieve(made.id) == made
    items = await a1.responses.input_items.list(made.id)
    assert [item.type for item in items.data] == ["message"]
    await a1.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError) as gone:
        await a1.responses.retrieve(made.id)
    assert f"Response with id '{made.id}' not found." in gone.value.message


async def test_a_stream_ends_in_the_stored_response(a1: AsyncOpenAI) -> None:
    async with a1.responses.stream(
        model=MODEL, input="hello", include=REASONING
    ) as stream:
        types = [event.type async for event in stream]
        final = await stream.get_final_response()
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert (await a1.responses.retrieve(final.id)).output_text == final.output_text


async def test_an_answer_carries_the_services_headers(http: httpx.AsyncClient) -> None:
    answer = await http.post(RESPONSES, json=create(stream=True))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["openai-organization"] == "acct-a"
    assert answer.headers["openai-project"] == "proj_acct-a"
    assert answer.headers["openai-version"] == "2020-10-01"
    assert answer.headers["x-simulated"] == "true"
    assert answer.headers["x-request-id"].startswith("req_")
    for name in ("cf-ray", "set-cookie", "x-ratelimit-remaining-tokens"):
        assert name in answer.headers
    deltas = [e for e in events_in(answer.text) if e["type"].endswith(".delta")]
    assert all(event["obfuscation"] for event in deltas)


async def test_an_unstored_response_cannot_be_read_or_continued(
    a1: AsyncOpenAI,
) -> None:
    made = await a1.responses.create(model=MODEL, input="hello", store=False)
    with pytest.raises(openai.NotFoundError):
        await a1.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        await a1.responses.create(
            model=MODEL, input="more", previous_response_id=made.id
        )
    assert refused.value.code == "previous_response_not_found"
    assert refused.value.param == "previous_response_id"


async def test_a_chain_goes_on_with_any_key_of_the_account_and_no_other(
    a1: AsyncOpenAI, a2: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    first = await a1.responses.create(model=MODEL, input="hello")
    second = await a2.responses.create(
        model=MODEL, input="more", previous_response_id=first.id
    )
    assert first.usage
    assert second.usage
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    assert second.usage.input_tokens_details.cached_tokens > 0
    with pytest.raises(openai.BadRequestError) as refused:
        await b1.responses.create(
            model=MODEL, input="more", previous_response_id=first.id
        )
    assert refused.value.body == {
        "message": f"Previous response with id '{first.id}' not found.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }


@pytest.mark.parametrize("verb", ["retrieve", "delete", "cancel", "input_items"])
async def test_another_accounts_response_does_not_exist(
    a1: AsyncOpenAI, b1: AsyncOpenAI, verb: str
) -> None:
    made = await a1.responses.create(model=MODEL, input="hello")
    responses: Any = b1.responses
    call = responses.input_items.list if verb == "input_items" else None
    with pytest.raises(openai.NotFoundError) as missing:
        await (call or getattr(responses, verb))(made.id)
    assert missing.value.code is None
    assert (await a1.responses.retrieve(made.id)).status == "completed"


async def test_a_tool_is_called_once_and_its_output_answered(a1: AsyncOpenAI) -> None:
    asked = await a1.responses.create(
        model=MODEL, input="please run-tool", tools=[EXEC]
    )
    call = asked.output[0]
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == (
        "exec_command",
        {"cmd": "echo hi"},
    )
    answered = await a1.responses.create(
        model=MODEL,
        previous_response_id=asked.id,
        tools=[EXEC],
        input=[
            {"type": "function_call_output", "call_id": call.call_id, "output": "hi"}
        ],
    )
    assert answered.output_text == "Simulated answer from acct-a: please run-tool"


async def test_a_prompt_cache_key_warms_its_own_account(
    a1: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    async def cached(who: AsyncOpenAI) -> int:
        made = await who.responses.create(
            model=MODEL, input="hello there", prompt_cache_key="k"
        )
        assert made.usage
        return made.usage.input_tokens_details.cached_tokens

    assert [await cached(a1), await cached(b1), await cached(a1)] == [0, 0, 3]


async def test_encrypted_reasoning_is_read_by_its_own_account_only(
    a1: AsyncOpenAI, a2: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    made = await a1.responses.create(
        model=MODEL, input="hello", store=False, include=REASONING
    )
    history: Any = [item.model_dump(exclude_none=True) for item in made.output]
    history.append({"role": "user", "content": "more"})
    assert (
        await a2.responses.create(model=MODEL, input=history, store=False)
    ).status == "completed"
    with pytest.raises(openai.BadRequestError) as refused:
        await b1.responses.create(model=MODEL, input=history, store=False)
    assert refused.value.code == "invalid_encrypted_content"
    assert "organization_id did not match the target" in refused.value.message

    history[0]["encrypted_content"] = "gAAAAbroken"
    with pytest.raises(openai.BadRequestError) as refused:
        await a1.responses.create(model=MODEL, input=history, store=False)
    assert "could not be decrypted or parsed." in refused.value.message


async def test_stored_items_are_found_in_their_own_account_only(
    a1: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    made = await a1.responses.create(model=MODEL, input="hello")
    item_id = str(made.output[0].id)
    reference: Any = [{"type": "item_reference", "id": item_id}]
    whole: Any = [made.output[0].model_dump(exclude_none=True)]
    assert (
        await a1.responses.create(model=MODEL, input=reference)
    ).status == "completed"
    for given in (reference, whole):
        with pytest.raises(openai.NotFoundError) as missing:
            await b1.responses.create(model=MODEL, input=given)
        assert f"Item with id '{item_id}' not found." in missing.value.message
        assert missing.value.param == "input"


@pytest.mark.parametrize(
    ("item", "status"),
    [
        pytest.param(
            {"type": "message", "role": "user", "id": "msg_0198-7f", "content": "x"},
            200,
            id="a client's own id",
        ),
        pytest.param({"type": "item_reference", "id": "msg_1"}, 404, id="reference"),
        pytest.param(
            {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
            404,
            id="file",
        ),
    ],
)
async def test_an_item_is_looked_up_only_if_it_must_be(
    http: httpx.AsyncClient, item: dict[str, Any], status: int
) -> None:
    answer = await http.post(RESPONSES, json=create(input=[item]))
    assert answer.status_code == status


async def test_unstored_reasoning_without_its_content_is_not_found(
    a1: AsyncOpenAI,
) -> None:
    made = await a1.responses.create(
        model=MODEL, input="hello", store=False, include=REASONING
    )
    bare: Any = [{"type": "reasoning", "id": made.output[0].id, "summary": []}]
    with pytest.raises(openai.NotFoundError) as missing:
        await a1.responses.create(model=MODEL, input=bare)
    assert "Items are not persisted when `store` is set to false" in str(missing.value)


async def test_compaction_gives_one_sealed_item(
    a1: AsyncOpenAI, b1: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    compacted = await a1.responses.compact(model=MODEL, input="a long history")
    assert compacted.object == "response.compaction"
    triggered = await http.post(
        RESPONSES, json=create(input=[{"type": "compaction_trigger"}])
    )
    (item,) = triggered.json()["output"]
    assert item["type"] == compacted.output[0].type == "compaction"
    with pytest.raises(openai.BadRequestError) as refused:
        await b1.responses.create(model=MODEL, input=[item])
    assert refused.value.code == "invalid_encrypted_content"


async def test_input_tokens_are_counted(a1: AsyncOpenAI) -> None:
    counted = await a1.responses.input_tokens.count(model=MODEL, input="12345678")
    assert counted.input_tokens == 2


@pytest.mark.parametrize(
    ("request_line", "headers", "body", "expected"),
    [
        (f"POST {RESPONSES}", bearer("sk-x"), b"{}", (401, "invalid_api_key")),
        (f"POST {RESPONSES}", {"authorization": ""}, b"{}", (401, None)),
        (f"POST {RESPONSES}", {}, b"{", (400, None)),
        (f"POST {RESPONSES}", {}, b"{}", (400, "missing_required_parameter")),
        (f"GET {RESPONSES}", {}, b"", (404, None)),
        ("GET /v1/nowhere", {}, b"", (404, None)),
        ("PUT /v1/models", {}, b"", (404, None)),
    ],
)
async def test_a_wrong_request_gets_the_services_envelope(
    http: httpx.AsyncClient,
    request_line: str,
    headers: dict[str, str],
    body: bytes,
    expected: tuple[int, str | None],
) -> None:
    method, path = request_line.split()
    answer = await http.request(method, path, headers=headers, content=body)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error["code"]) == expected


@pytest.mark.parametrize(
    ("encoding", "encode"), [("zstd", zstandard.compress), ("gzip", gzip.compress)]
)
async def test_compressed_bodies_are_read_and_journalled_as_sent(
    http: httpx.AsyncClient, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    raw = encode(json.dumps(create()).encode())
    answer = await http.post(
        RESPONSES, content=raw, headers={"content-encoding": encoding}
    )
    assert answer.status_code == 200
    (entry,) = await journal(http, limit=1)
    assert entry["body_size"] == len(raw)
    assert entry["body_sha256"] == hashlib.sha256(raw).hexdigest()
    assert entry["model"] == MODEL


async def test_a_body_of_many_megabytes_is_taken(http: httpx.AsyncClient) -> None:
    answer = await http.post(RESPONSES, json=create(input="x" * 20_000_000))
    assert answer.json()["usage"]["input_tokens"] == 5_000_000


async def test_a_body_over_the_bound_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post(RESPONSES, content=b" " * (64 * 1024 * 1024 + 1))
    assert answer.status_code == 413


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_it_accepts_as_it_ends_is_closed(turns: int) -> None:
    async with Simulator({"sk-sim-1": "acct-a"}) as simulator:
        client = socket.create_connection(("127.0.0.1", simulator.port), 60)
        for _ in range(turns):  # of the event loop, while it accepts
            await asyncio.sleep(0)
    with client, suppress(ConnectionError):  # it was not accepted
        assert await asyncio.to_thread(client.recv, 1) == b""
