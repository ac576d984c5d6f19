"""Silent phases of a stream and of a WebSocket, with PROXY_CLIENT_KEEPALIVE_SECONDS."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests.support.clients import raw
from tests.support.clients.frames import PING, UPGRADE, read_frame
from tests.support.clients.raw import calling, get
from tests.support.processes.stack import Stack, gateway_stack

pytestmark = pytest.mark.asyncio
CREATE = {"model": "gpt-5.5", "input": "hi", "stream": True}


async def lines_of_a_stalled_stream(stack: Stack, count: int) -> list[str]:
    lines: list[str] = []
    await stack.fault(stall_after=2)
    async with (
        httpx.AsyncClient(timeout=20) as http,
        http.stream("POST", f"{stack.url}/responses", json=CREATE) as answer,
    ):
        async for line in answer.aiter_lines():
            lines.append(line)
            if line.startswith(":") and lines.count(line) == count:
                break
    return lines


async def test_silence_is_broken(valkey: str, tmp_path: Path) -> None:
    settings = {"PROXY_CLIENT_KEEPALIVE_SECONDS": "0.2"}
    async with gateway_stack(valkey, tmp_path, **settings) as stack:
        lines = await lines_of_a_stalled_stream(stack, count=2)
        events = [line for line in lines if line.startswith("event:")]
        assert len(events) == 2
        comment = lines.index(": keepalive")
        assert lines[comment - 1] == lines[comment + 1] == ""  # between two events
        async with calling(stack.origin) as caller:
            await caller.send(get(b"/v1/responses", *UPGRADE))
            assert (await caller.head())[0] == 101
            async with asyncio.timeout(raw.PATIENCE_S):
                for _ in range(2):
                    assert await read_frame(caller.reader) == (PING, b"")
