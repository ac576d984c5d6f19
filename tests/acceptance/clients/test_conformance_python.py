"""openai-python through a gateway, over HTTP and WebSocket: what tests/integration does
not cover."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError
from openai.resources.responses.responses import AsyncResponsesConnection
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from tests.support.clients.conformance import (
    MODEL,
    REASONING,
    TOOL,
    compressed_and_read,
    outcomes,
    output_of,
    refuse_once,
    timed,
)
from tests.support.processes.stack import Stack

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def openai(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=stack.url, api_key="client") as client:
        yield client


def replayed(response: Any) -> Any:
    """A history that sends the reasoning back."""
    history = [item.model_dump(exclude_none=True) for item in response.output]
    assert any(item.get("encrypted_content") for item in history)
    return [*history, {"role": "user", "content": "more"}]


class TestHttp:
    async def test_a_compressed_stream(self, stack: Stack, openai: AsyncOpenAI) -> None:
        await stack.fault(compress=True)
        stream = await openai.responses.create(model=MODEL, input="hi", stream=True)
        assert [event.type async for event in stream][-1] == "response.completed"
        assert await outcomes(stack, 1) == ["completed"]
        assert await compressed_and_read(stack)

    async def test_a_tool_call_round(self, openai: AsyncOpenAI) -> None:
        asked = await openai.responses.create(
            model=MODEL, input="please run-tool", tools=[TOOL]
        )
        call = asked.output[0]
        assert call.type == "function_call"
        answered = await openai.responses.create(
            model=MODEL,
            previous_response_id=asked.id,
            tools=[TOOL],
            input=output_of(call.call_id),
        )
        assert answered.output_text.endswith("please run-tool")

    async def test_encrypted_reasoning_goes_back_to_its_account(
        self, openai: AsyncOpenAI
    ) -> None:
        made = await openai.responses.create(
            model=MODEL, input="hello", store=False, include=REASONING
        )
        for _ in range(4):
            more = await openai.responses.create(
                model=MODEL, input=replayed(made), store=False
            )
            assert more.output_text.endswith("more")

    async def test_an_error_is_the_sdks_own_with_its_message(
        self, openai: AsyncOpenAI
    ) -> None:
        with pytest.raises(BadRequestError) as ours:
            await openai.responses.create(
                model=MODEL, input="hi", extra_headers={"x-pool-id": "nowhere"}
            )
        assert ours.value.code == "unknown_pool"
        assert "nowhere" in ours.value.message
        with pytest.raises(BadRequestError) as upstreams:
            await openai.responses.create(
                model=MODEL, input="hi", previous_response_id="resp_nobody"
            )
        assert upstreams.value.code == "previous_response_not_found"
        assert "'resp_nobody' not found" in upstreams.value.message
        assert (upstreams.value.request_id or "").startswith("req_")

    async def test_it_waits_as_long_as_a_429_asks(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        await refuse_once(stack)
        with timed() as clock:
            answer = await openai.responses.create(model=MODEL, input="hi")
        assert answer.status == "completed"
        assert clock.seconds >= 1
        assert await outcomes(stack, 2) == ["failed", "completed"]

    async def test_a_cut_stream_ends_in_response_failed(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        await stack.fault(cut_after=3)
        stream = await openai.responses.create(model=MODEL, input="hi", stream=True)
        *_, last = [event async for event in stream]
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert "broke off" in last.response.error.message
        assert await outcomes(stack, 1) == ["failed"]

    async def test_a_stream_that_is_left_is_cancelled(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        await stack.fault(stall_after=2)
        async with await openai.responses.create(
            model=MODEL, input="hi", stream=True
        ) as stream:
            assert (await anext(stream)).type == "response.created"
        assert await outcomes(stack, 1) == ["cancelled"]


async def asked(connection: AsyncResponsesConnection, **fields: Any) -> Any:
    """The event that ends one turn."""
    await connection.response.create(model=MODEL, **fields)
    async for event in connection:
        if event.type in ("response.completed", "response.failed", "error"):
            return event
    raise AssertionError("the socket ended")


class TestWebSocket:
    async def test_a_tool_call_round(self, openai: AsyncOpenAI) -> None:
        async with openai.responses.connect() as connection:
            first = await asked(
                connection, input="please run-tool", tools=[TOOL], store=False
            )
            (call,) = [i for i in first.response.output if i.type == "function_call"]
            last = await asked(
                connection,
                previous_response_id=first.response.id,
                input=output_of(call.call_id),
                tools=[TOOL],
                store=False,
            )
        assert last.response.output_text.endswith("please run-tool")

    async def test_a_conversation_is_continued(self, openai: AsyncOpenAI) -> None:
        conversation = await openai.conversations.create()
        for _ in range(3):
            async with openai.responses.connect() as connection:
                end = await asked(connection, input="hi", conversation=conversation.id)
            assert end.type == "response.completed"
        items = await openai.conversations.items.list(conversation.id)
        assert len(items.data) >= 6

    async def test_encrypted_reasoning_goes_back_to_its_account(
        self, openai: AsyncOpenAI
    ) -> None:
        made = await openai.responses.create(
            model=MODEL, input="hello", store=False, include=REASONING
        )
        for _ in range(4):
            async with openai.responses.connect() as connection:
                end = await asked(connection, input=replayed(made), store=False)
            assert end.type == "response.completed"

    async def test_an_error_is_an_event_with_code_and_message(
        self, openai: AsyncOpenAI
    ) -> None:
        async with openai.responses.connect() as connection:
            end = await asked(
                connection, input="hi", previous_response_id="resp_nobody"
            )
            told = end.to_dict()
            again = await asked(connection, input="hi")
        assert told["status"] == 400
        assert told["error"]["code"] == "previous_response_not_found"
        assert "'resp_nobody' not found" in told["error"]["message"]
        assert again.type == "response.completed"

    async def test_a_429_says_how_long_to_wait(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        """The SDK does not retry on a socket; its user waits."""
        await stack.fault(times=3, status=429, headers={"retry-after": "1"})
        async with openai.responses.connect() as connection:
            told = (await asked(connection, input="hi")).to_dict()
        assert told["status"] == 429
        assert told["error"]["code"] == "rate_limit_exceeded"
        given = {**told.get("headers", {}), **told["error"].get("headers", {})}
        assert given["retry-after"] == "1"

    async def test_a_cut_socket_says_so_and_closes(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        await stack.fault(ws_cut_after=3)  # within the output
        async with openai.responses.connect() as connection:
            end = await asked(connection, input="hi")
            assert end.to_dict()["error"]["code"] == "upstream_unreachable"
            with pytest.raises(ConnectionClosedError):
                await connection.recv()
        assert await outcomes(stack, 1) == ["failed"]

    async def test_a_socket_that_is_left_is_cancelled(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        await stack.fault(stall_after=2)
        async with openai.responses.connect() as connection:
            await connection.response.create(model=MODEL, input="hi")
            assert (await connection.recv()).type == "response.created"
        assert await outcomes(stack, 1) == ["cancelled"]

    async def test_a_refused_upgrade_is_told_with_its_status(
        self, stack: Stack, openai: AsyncOpenAI
    ) -> None:
        """The SDK's user decides to fall back; HTTP works at the same time."""
        await stack.fault(times=None, ws_refuse=426)
        with pytest.raises(InvalidStatus) as refused:
            async with openai.responses.connect():
                pass
        assert refused.value.response.status_code == 426
        made = await openai.responses.create(model=MODEL, input="hi")
        assert made.status == "completed"
