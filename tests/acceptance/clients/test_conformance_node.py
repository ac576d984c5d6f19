"""openai-node through a gateway: runs the scenarios of node/client.mjs."""

import asyncio
import json
from typing import Any

import pytest

from tests.support.clients.conformance import (
    compressed_and_read,
    outcomes,
    refuse_once,
)
from tests.support.processes.processes import ROOT
from tests.support.processes.stack import Stack

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
SCRIPT = ROOT / "tests/acceptance/clients/node/client.mjs"
MODULES = ROOT / ".venv/node"


async def run(stack: Stack, scenario: str) -> Any:
    """The result of a scenario."""
    assert (MODULES / "node_modules/openai").exists(), "run `make setup-node`"
    process = await asyncio.create_subprocess_exec(
        "node", SCRIPT, scenario, stack.url, MODULES,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_create_retrieve_list_and_delete(stack: Stack) -> None:
    seen = await run(stack, "objects")
    assert "Simulated answer" in seen["text"]
    assert seen["same"]
    assert seen["item"]["type"] == "message"
    assert (seen["gone"]["class"], seen["gone"]["status"]) == ("NotFoundError", 404)


async def test_stream(stack: Stack) -> None:
    seen = await run(stack, "stream")
    assert (seen[0], seen[-1]) == ("response.created", "response.completed")


async def test_a_compressed_stream(stack: Stack) -> None:
    await stack.fault(compress=True)
    seen = await run(stack, "stream")
    assert seen[-1] == "response.completed"
    assert await outcomes(stack, 1) == ["completed"]
    assert await compressed_and_read(stack)


async def test_a_tool_call_round(stack: Stack) -> None:
    assert (await run(stack, "tool")).endswith("please run-tool")


async def test_a_background_job_is_cancelled(stack: Stack) -> None:
    assert await run(stack, "background") == "cancelled"


async def test_a_conversation_is_continued(stack: Stack) -> None:
    assert await run(stack, "conversation") >= 8


async def test_a_chain_stays_on_its_account(stack: Stack) -> None:
    assert (await run(stack, "chain")).startswith("resp_")
    assert await outcomes(stack, 5) == ["completed"] * 5


async def test_encrypted_reasoning_goes_back_to_its_account(stack: Stack) -> None:
    seen = await run(stack, "reasoning")
    assert seen["sealed"]
    assert [text.endswith("more") for text in seen["texts"]] == [True] * 4


async def test_an_error_is_the_sdks_own_with_its_message(stack: Stack) -> None:
    seen = await run(stack, "error")
    ours, upstreams = seen["ours"], seen["upstreams"]
    assert (ours["class"], ours["code"]) == ("BadRequestError", "unknown_pool")
    assert "nowhere" in ours["message"]
    assert upstreams["class"] == "BadRequestError"
    assert upstreams["code"] == "previous_response_not_found"
    assert "'resp_nobody' not found" in upstreams["message"]
    assert upstreams["id"].startswith("req_")


async def test_it_waits_as_long_as_a_429_asks(stack: Stack) -> None:
    await refuse_once(stack)
    seen = await run(stack, "wait")
    assert seen["status"] == "completed"
    assert seen["seconds"] >= 1
    assert await outcomes(stack, 2) == ["failed", "completed"]


async def test_a_cut_stream_ends_in_response_failed(stack: Stack) -> None:
    await stack.fault(cut_after=3)
    last = await run(stack, "cut")
    assert last["type"] == "response.failed"
    assert "broke off" in last["response"]["error"]["message"]
    assert await outcomes(stack, 1) == ["failed"]


async def test_a_stream_that_is_aborted_is_cancelled(stack: Stack) -> None:
    await stack.fault(stall_after=2)
    assert await run(stack, "abort") == "response.created"
    assert await outcomes(stack, 1) == ["cancelled"]


async def test_a_chain_on_one_socket(stack: Stack) -> None:
    first, second = await run(stack, "socket")
    assert second["previous_response_id"] == first
    message = second["output"][-1]["content"][0]["text"]
    assert message.endswith("please run-tool")
    rows = await stack.requests(2)
    assert [row["transport"] for row in rows] == ["ws", "ws"]
