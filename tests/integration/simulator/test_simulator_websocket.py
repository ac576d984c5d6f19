"""The simulated upstream over WebSocket."""

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from libs.simulator.server import RunningSimulator
from tests.support.upstreams.simulated import MODEL, bearer, create, journal, script

pytest_plugins = ["tests.support.upstreams.simulated_clients"]
pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def socket(
    simulator: RunningSimulator, key: str = "sk-a1"
) -> AsyncIterator[ClientConnection]:
    url = simulator.base_url.replace("http", "ws", 1) + "/responses"
    async with connect(url, additional_headers=bearer(key), proxy=None) as opened:
        yield opened


async def asked(opened: ClientConnection, **fields: Any) -> list[dict[str, Any]]:
    """The frames that answer one `response.create`."""
    await opened.send(json.dumps({"type": "response.create", **create(**fields)}))
    frames: list[dict[str, Any]] = []
    ends = ("response.completed", "response.failed", "response.incomplete", "error")
    while not frames or frames[-1]["type"] not in ends:
        frames.append(json.loads(await opened.recv()))
    return frames


async def test_the_sdk_talks_over_a_websocket(a1: AsyncOpenAI) -> None:
    async with a1.responses.connect() as connection:
        await connection.response.create(model=MODEL, input="hello")
        types = []
        async for event in connection:
            types.append(event.type)
            if event.type == "response.completed":
                assert event.response.output_text.endswith("hello")
                break
    assert types[0] == "response.created"


async def test_a_socket_remembers_its_latest_unstored_response(
    simulator: RunningSimulator,
) -> None:
    async with socket(simulator) as one, socket(simulator) as other:
        warm = (await asked(one, store=False, generate=False))[-1]["response"]
        assert warm["output"] == []
        first = (await asked(one, store=False, previous_response_id=warm["id"]))[-1]
        again = (await asked(one, store=False, previous_response_id=warm["id"]))[-1]
        chain = {"store": False, "previous_response_id": first["response"]["id"]}
        elsewhere = (await asked(other, **chain))[-1]
        second = (await asked(one, **chain))[-1]
    assert again["error"]["code"] == "previous_response_not_found"
    assert elsewhere["status"] == 400
    assert elsewhere["error"]["code"] == "previous_response_not_found"
    assert second["type"] == "response.completed"


async def test_a_socket_loads_what_is_stored_in_its_account(
    simulator: RunningSimulator, a2: AsyncOpenAI
) -> None:
    made = await a2.responses.create(model=MODEL, input="hello")
    async with socket(simulator) as own, socket(simulator, "sk-b1") as foreign:
        found = (await asked(own, previous_response_id=made.id))[-1]
        refused = (await asked(foreign, previous_response_id=made.id))[-1]
    assert found["type"] == "response.completed"
    assert refused["error"]["code"] == "previous_response_not_found"


async def test_a_failed_turn_drops_the_response_it_continued(
    simulator: RunningSimulator, http: httpx.AsyncClient
) -> None:
    async with socket(simulator) as opened:
        first = (await asked(opened, store=False))[-1]["response"]["id"]
        await script(http, {"status": 500, "headers": {"retry-after": "1"}}, times=1)
        failed = (await asked(opened, store=False, previous_response_id=first))[-1]
        after = (await asked(opened, store=False, previous_response_id=first))[-1]
    assert (failed["status"], failed["headers"]) == (500, {"retry-after": "1"})
    assert after["error"]["code"] == "previous_response_not_found"


async def test_lanes_are_echoed_and_answered_side_by_side(
    simulator: RunningSimulator, http: httpx.AsyncClient
) -> None:
    async with socket(simulator) as opened:
        await script(http, {"delay_ms": 1_000}, times=1)
        for lane in ("slow", "fast"):
            frame = {"type": "response.create", **create(), "stream_id": lane}
            await opened.send(json.dumps(frame))
        ends: list[str] = []
        while len(ends) < 2:
            event = json.loads(await opened.recv())
            if event["type"] == "response.completed":
                ends.append(event["stream_id"])
        assert ends == ["fast", "slow"]


async def test_a_socket_has_a_bounded_number_of_lanes(
    simulator: RunningSimulator,
) -> None:
    async with socket(simulator) as opened:
        for number in range(32):
            frames = await asked(opened, stream_id=f"lane-{number}")
            assert frames[-1]["type"] == "response.completed"
        refused = (await asked(opened, stream_id="one too many"))[-1]
    assert refused["error"]["code"] == "websocket_stream_limit_reached"
    assert refused["error"]["param"] == "stream_id"


@pytest.mark.parametrize(
    "frame",
    [
        "no json",
        '{"type":"response.steer"}',
        '{"type":"response.create"}',
        '{"type":"response.create","model":"m","background":true}',
    ],
)
async def test_a_wrong_frame_is_answered_with_an_error_frame(
    simulator: RunningSimulator, frame: str
) -> None:
    async with socket(simulator) as opened:
        await opened.send('{"type":"response.processed"}')  # expects no answer
        await opened.send(frame)
        answer = json.loads(await opened.recv())
    assert (answer["type"], answer["status"]) == ("error", 400)


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"ws_refuse": 426}, 426), ({"ws_refuse": 429}, 429), ({"revoked": True}, 401)],
)
async def test_an_upgrade_is_refused(
    simulator: RunningSimulator,
    http: httpx.AsyncClient,
    fault: dict[str, Any],
    status: int,
) -> None:
    await script(http, fault)
    with pytest.raises(InvalidStatus) as refused:
        async with socket(simulator):
            pass
    assert refused.value.response.status_code == status


async def test_an_unknown_key_opens_no_socket(simulator: RunningSimulator) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with socket(simulator, "sk-x"):
            pass
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize(
    ("fault", "count"),
    [
        ({"ws_cut_after": 3}, 3),
        ({"cut_after": 1}, 1),
        ({"end_after": 2}, 2),
        ({"reset": True}, 0),
    ],
)
async def test_a_socket_breaks_after_some_events(
    simulator: RunningSimulator,
    http: httpx.AsyncClient,
    fault: dict[str, Any],
    count: int,
) -> None:
    await script(http, fault)
    received = 0
    async with socket(simulator) as opened:
        await opened.send(json.dumps({"type": "response.create", **create()}))
        with contextlib.suppress(ConnectionClosed):
            while await opened.recv():
                received += 1
    assert received == count


async def test_a_client_may_close_while_its_answer_stalls(
    simulator: RunningSimulator, http: httpx.AsyncClient
) -> None:
    await script(http, {"stall_after": 1})
    async with socket(simulator) as opened:
        await opened.send(json.dumps({"type": "response.create", **create()}))
        await opened.recv()
    assert opened.close_code == 1000


async def test_frames_are_journalled(
    simulator: RunningSimulator, http: httpx.AsyncClient
) -> None:
    async with socket(simulator) as opened:
        frames = await asked(opened, store=False)
    upgrade, frame = await journal(http)
    assert (upgrade["method"], upgrade["status"]) == ("GET", 101)
    assert (frame["method"], frame["status"], frame["model"]) == ("WS", 200, MODEL)
    assert (frame["key"], frame["account"]) == ("sk-a1", "acct-a")
    assert frame["response_id"] == frames[-1]["response"]["id"]
