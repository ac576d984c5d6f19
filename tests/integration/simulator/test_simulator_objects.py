"""The simulated upstream: background responses, conversations, files, models."""

import asyncio
import io
import json

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from libs.simulator.server import RunningSimulator
from tests.support.processes.waiting import eventually
from tests.support.upstreams.simulated import (
    MODEL,
    RESPONSES,
    create,
    events_in,
    held,
)

pytest_plugins = ["tests.support.upstreams.simulated_clients"]
pytestmark = pytest.mark.asyncio


async def test_a_background_response_is_polled_until_it_is_complete(
    a1: AsyncOpenAI, a2: AsyncOpenAI
) -> None:
    made = await a1.responses.create(
        model=MODEL,
        input="hello",
        background=True,
        metadata={"simulate_duration_ms": "40"},
    )
    assert made.status == "queued"

    async def complete() -> bool:
        return (await a2.responses.retrieve(made.id)).status == "completed"

    await eventually(complete)
    assert (await a1.responses.retrieve(made.id)).output_text.endswith("hello")
    assert (await a1.responses.cancel(made.id)).status == "completed"


async def test_a_background_response_can_be_cancelled_and_followed(
    a1: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    made = await a1.responses.create(
        model=MODEL,
        input="hello",
        background=True,
        metadata={"simulate_duration_ms": "60000"},
    )
    following = await a1.responses.retrieve(made.id, stream=True)
    with pytest.raises(openai.NotFoundError):
        await b1.responses.cancel(made.id)
    assert (await a1.responses.cancel(made.id)).status == "cancelled"
    types = [event.type async for event in following]
    assert types[:2] == ["response.created", "response.queued"]
    assert (await a1.responses.retrieve(made.id)).status == "cancelled"


async def test_a_background_stream_is_taken_up_again_where_it_broke(
    a1: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    body = create(stream=True, background=True, metadata={"simulate_duration_ms": "60"})
    async with http.stream("POST", RESPONSES, json=body) as answer:
        lines = answer.aiter_lines()
        first = [await anext(lines) for _ in range(2)]
    response_id = json.loads(first[1].removeprefix("data: "))["response"]["id"]
    rest = [
        event
        async for event in await a1.responses.retrieve(
            response_id, stream=True, starting_after=1
        )
    ]
    assert [event.sequence_number for event in rest] == list(range(2, 2 + len(rest)))
    assert rest[-1].type == "response.completed"


async def test_a_stored_response_is_replayed_with_the_same_numbers(
    http: httpx.AsyncClient,
) -> None:
    events = events_in((await http.post(RESPONSES, json=create(stream=True))).text)
    response_id = events[0]["response"]["id"]
    replay = await http.get(
        f"{RESPONSES}/{response_id}", params={"stream": "true", "starting_after": "3"}
    )
    assert [event["type"] for event in events_in(replay.text)] == [
        event["type"] for event in events[4:]
    ]


async def test_a_response_that_ran_at_once_cannot_be_cancelled(a1: AsyncOpenAI) -> None:
    made = await a1.responses.create(model=MODEL, input="hello")
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous"):
        await a1.responses.cancel(made.id)


async def test_a_deleted_background_response_stays_deleted(
    a1: AsyncOpenAI, simulator: RunningSimulator
) -> None:
    made = await a1.responses.create(
        model=MODEL,
        input="hello",
        background=True,
        metadata={"simulate_duration_ms": "20"},
    )
    await a1.responses.delete(made.id)
    await asyncio.sleep(0.05)
    assert len(simulator.state.storage) == 0


async def test_a_conversation_collects_items_and_answers(
    a1: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    made = await a1.conversations.create(
        metadata={"a": "b"},
        items=[{"type": "message", "role": "user", "content": "first"}],
    )
    answered = await a1.responses.create(
        model=MODEL, input="second", conversation=made.id
    )
    assert answered.conversation
    assert answered.conversation.id == made.id
    items = await a1.conversations.items.list(made.id, order="asc")
    assert [item.type for item in items.data] == ["message"] * 3
    assert items.data[-1].id == answered.output[0].id
    with pytest.raises(openai.NotFoundError) as missing:
        await b1.responses.create(model=MODEL, input="x", conversation=made.id)
    assert f"Conversation with id '{made.id}' not found." in missing.value.message

    one = await a1.conversations.items.retrieve(
        str(items.data[0].id), conversation_id=made.id
    )
    assert one == items.data[0]
    await a1.conversations.items.delete(str(one.id), conversation_id=made.id)
    added = await a1.conversations.items.create(
        made.id, items=[{"type": "message", "role": "user", "content": "third"}]
    )
    assert len(added.data) == 1
    assert len((await a1.conversations.items.list(made.id)).data) == 3


async def test_a_conversation_is_shown_changed_and_deleted(
    a1: AsyncOpenAI, b1: AsyncOpenAI
) -> None:
    made = await a1.conversations.create(metadata={"a": "b"})
    changed = await a1.conversations.update(made.id, metadata={"c": "d"})
    assert (await a1.conversations.retrieve(made.id)) == changed
    assert changed.metadata == {"c": "d"}
    with pytest.raises(openai.NotFoundError):
        await b1.conversations.delete(made.id)
    assert (await a1.conversations.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await a1.conversations.retrieve(made.id)


async def test_a_conversation_serves_one_response_at_a_time(
    a1: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    made = await a1.conversations.create()
    await http.post("/__sim/hold")
    waiting = asyncio.create_task(
        a1.responses.create(model=MODEL, input="x", conversation=made.id)
    )
    await eventually(lambda: held(http, 1))
    with pytest.raises(openai.BadRequestError) as locked:
        await a1.responses.create(model=MODEL, input="y", conversation=made.id)
    assert locked.value.code == "conversation_locked"
    await http.post("/__sim/release")
    await waiting
    assert (
        await a1.responses.create(model=MODEL, input="y", conversation=made.id)
    ).status == "completed"


async def test_files_belong_to_their_account(a1: AsyncOpenAI, b1: AsyncOpenAI) -> None:
    upload = ("a.txt", io.BytesIO(b"one\r\ntwo\n"))
    made = await a1.files.create(file=upload, purpose="user_data")
    assert (made.filename, made.bytes, made.purpose) == ("a.txt", 9, "user_data")
    assert (await a1.files.content(made.id)).content == b"one\r\ntwo\n"
    assert [file.id for file in (await a1.files.list()).data] == [made.id]
    assert (await b1.files.list()).data == []
    with pytest.raises(openai.NotFoundError):
        await b1.files.retrieve(made.id)
    assert (await a1.files.retrieve(made.id)).id == made.id
    assert (await a1.files.delete(made.id)).deleted


async def test_models_chat_and_embeddings_answer(a1: AsyncOpenAI) -> None:
    models = [model.id async for model in a1.models.list()]
    assert MODEL in models
    assert (await a1.models.retrieve(MODEL)).object == "model"
    with pytest.raises(openai.NotFoundError) as missing:
        await a1.models.retrieve("none")
    assert missing.value.code == "model_not_found"
    said = await a1.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hello"}]
    )
    assert said.choices[0].message.content == "Simulated answer from acct-a: hello"
    chunks = [
        chunk.choices[0].delta.content or ""
        async for chunk in await a1.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hello"}], stream=True
        )
    ]
    assert "".join(chunks) == said.choices[0].message.content
    vectors = await a1.embeddings.create(
        model="text-embedding-3-small", input=["a", "b"], encoding_format="float"
    )
    assert len(vectors.data) == 2
