"""Client sockets at `WS /v1/responses` of a gateway: the frames of a turn, the end of a
socket, and what the ledger has of them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support.processes.stack import KEYS, Stack
from tests.support.processes.waiting import eventually

MODEL = "gpt-5.5"
ENDS = ("response.completed", "response.failed", "response.incomplete", "error")


@asynccontextmanager
async def socket(
    stack: Stack, path: str = "/responses", **headers: str
) -> AsyncIterator[ClientConnection]:
    url = stack.url.replace("http", "ws", 1) + path
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with connect(
        url, additional_headers=given, proxy=None, compression=None
    ) as opened:
        yield opened


async def ask(opened: ClientConnection, **fields: Any) -> None:
    frame = {"type": "response.create", "model": MODEL, "input": "hello", **fields}
    await opened.send(json.dumps(frame))


async def answer(opened: ClientConnection) -> list[dict[str, Any]]:
    """Frames up to the one that ends a response."""
    frames: list[dict[str, Any]] = []
    while not frames or frames[-1]["type"] not in ENDS:
        frames.append(json.loads(await opened.recv()))
    return frames


async def asked(opened: ClientConnection, **fields: Any) -> list[dict[str, Any]]:
    await ask(opened, **fields)
    return await answer(opened)


async def end_of(opened: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """All frames until the gateway closes, and the close code."""
    frames: list[dict[str, Any]] = []
    with suppress(ConnectionClosed):
        while True:
            frames.append(json.loads(await opened.recv()))
    assert opened.close_code is not None
    return frames, opened.close_code


async def refusal(stack: Stack, **headers: str) -> tuple[int, dict[str, Any], Any]:
    """Status, headers and error of a refused upgrade."""
    with pytest.raises(InvalidStatus) as refused:
        async with socket(stack, **headers):
            pass
    response = refused.value.response
    given = {name.lower(): value for name, value in response.headers.raw_items()}
    return response.status_code, given, json.loads(response.body or b"")["error"]


async def rows(stack: Stack, count: int) -> list[dict[str, Any]]:
    """The ledger's requests, once there are this many and nothing is in flight."""

    async def settled() -> list[dict[str, Any]]:
        events = await stack.events("request")
        idle = await stack.in_flight() == 0
        return events if len(events) >= count and idle else []

    events = await eventually(settled)
    assert len(events) == count
    return events


async def upgrades_are_over(stack: Stack) -> bool:
    """Whether every socket that the upstream accepted is closed."""
    entries = [entry for entry in stack.journal() if entry["status"] == 101]
    return bool(entries) and all(entry["ended_at"] for entry in entries)


def key_of(row: dict[str, Any]) -> str:
    return list(KEYS)[int(row["resource_id"].removeprefix("openai-")) - 1]
