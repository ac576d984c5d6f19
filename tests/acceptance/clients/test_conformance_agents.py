"""The Agents SDK through a gateway."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from openai import AsyncOpenAI, BadRequestError

from tests.support.clients.conformance import (
    compressed_and_read,
    outcomes,
    refuse_once,
    timed,
)
from tests.support.processes.stack import Stack

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def sdk() -> Any:
    # Here, because its import takes seconds of each worker's collection.
    from tests.support.clients import agents_sdk  # noqa: PLC0415

    return agents_sdk


@pytest_asyncio.fixture(loop_scope="module")
async def openai(stack: Stack) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=stack.url, api_key="client") as client:
        yield client


@pytest.fixture
def config(sdk: Any, openai: AsyncOpenAI) -> Any:
    provider = sdk.OpenAIProvider(openai_client=openai, use_responses=True)
    return sdk.RunConfig(model_provider=provider, tracing_disabled=True)


async def test_a_run(sdk: Any, config: Any) -> None:
    run = await sdk.Runner.run(sdk.AGENT, "hello", run_config=config)
    assert str(run.final_output).endswith("hello")


async def test_a_streamed_run(sdk: Any, config: Any) -> None:
    run = sdk.Runner.run_streamed(sdk.AGENT, "hello", run_config=config)
    kinds = [
        event.data.type
        async for event in run.stream_events()
        if event.type == "raw_response_event"
    ]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert str(run.final_output).endswith("hello")


async def test_a_compressed_stream(sdk: Any, stack: Stack, config: Any) -> None:
    await stack.fault(compress=True)
    run = sdk.Runner.run_streamed(sdk.AGENT, "hello", run_config=config)
    assert [event async for event in run.stream_events()]
    assert str(run.final_output).endswith("hello")
    assert await outcomes(stack, 1) == ["completed"]
    assert await compressed_and_read(stack)


async def test_a_tool_call_round(sdk: Any, stack: Stack, config: Any) -> None:
    """Stored items are sent back by their ids and reach their account."""
    run = await sdk.Runner.run(sdk.HANDY, "please run-tool", run_config=config)
    assert str(run.final_output).endswith("please run-tool")
    assert await outcomes(stack, 2) == ["completed"] * 2


async def test_a_conversation_is_continued(
    sdk: Any, openai: AsyncOpenAI, config: Any
) -> None:
    conversation = await openai.conversations.create()
    for _ in range(3):
        await sdk.Runner.run(
            sdk.AGENT, "hello", run_config=config, conversation_id=conversation.id
        )
    session = sdk.OpenAIConversationsSession(
        conversation_id=conversation.id, openai_client=openai
    )
    assert len(await session.get_items()) >= 6


async def test_a_chain_stays_on_its_account(
    sdk: Any, stack: Stack, config: Any
) -> None:
    run = await sdk.Runner.run(sdk.AGENT, "hello", run_config=config)
    for _ in range(4):
        run = await sdk.Runner.run(
            sdk.AGENT,
            "more",
            run_config=config,
            previous_response_id=run.last_response_id,
        )
    assert await outcomes(stack, 5) == ["completed"] * 5


async def test_encrypted_reasoning_goes_back_to_its_account(
    sdk: Any, stack: Stack, config: Any
) -> None:
    run = await sdk.Runner.run(sdk.SEALED, "hello", run_config=config)
    history = run.to_input_list()
    assert "encrypted_content" in str(history)
    for _ in range(4):
        more: Any = [*history, {"role": "user", "content": "more"}]
        await sdk.Runner.run(sdk.SEALED, more, run_config=config)
    assert await outcomes(stack, 5) == ["completed"] * 5


async def test_an_error_is_the_sdks_own_with_its_message(sdk: Any, config: Any) -> None:
    with pytest.raises(BadRequestError) as refused:
        await sdk.Runner.run(
            sdk.AGENT, "hello", run_config=config, previous_response_id="resp_nobody"
        )
    assert refused.value.code == "previous_response_not_found"
    assert "'resp_nobody' not found" in refused.value.message


async def test_it_waits_as_long_as_a_429_asks(
    sdk: Any, stack: Stack, config: Any
) -> None:
    await refuse_once(stack)
    with timed() as clock:
        run = await sdk.Runner.run(sdk.AGENT, "hello", run_config=config)
    assert str(run.final_output).endswith("hello")
    assert clock.seconds >= 1
    assert await outcomes(stack, 2) == ["failed", "completed"]


async def test_a_cut_stream_ends_in_an_error(
    sdk: Any, stack: Stack, config: Any
) -> None:
    await stack.fault(cut_after=3)
    run = sdk.Runner.run_streamed(sdk.AGENT, "hello", run_config=config)
    with pytest.raises(sdk.ModelBehaviorError):
        await _read(run)
    assert await outcomes(stack, 1) == ["failed"]


async def _read(run: Any) -> list[Any]:
    return [event async for event in run.stream_events()]


async def test_a_run_that_is_stopped_is_cancelled(
    sdk: Any, stack: Stack, config: Any
) -> None:
    await stack.fault(stall_after=2)
    run = sdk.Runner.run_streamed(sdk.AGENT, "hello", run_config=config)
    async for event in run.stream_events():
        if event.type == "raw_response_event":
            run.cancel()
    assert await outcomes(stack, 1) == ["cancelled"]


async def test_a_chain_on_one_socket(sdk: Any, stack: Stack) -> None:
    async with sdk.responses_websocket_session(
        api_key="client", base_url=stack.url
    ) as session:
        run = await sdk.Runner.run(
            sdk.HANDY,
            "please run-tool",
            run_config=replace(session.run_config, tracing_disabled=True),
            auto_previous_response_id=True,
        )
    assert str(run.final_output).endswith("please run-tool")
    rows = await stack.requests(2)
    assert [row["transport"] for row in rows] == ["ws", "ws"]
    assert rows[1]["previous_response_id"] == rows[0]["response_id"]
