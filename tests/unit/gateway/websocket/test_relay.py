"""Two joined sockets: frames pass unchanged, and each end learns how the other
closed."""

import asyncio
import gc
import warnings
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Close

from libs.common.proxy_keys import Principal, Reached
from libs.common.routing.types import OwnerGone
from services.gateway.websocket.relay import RETIRED, SocketRelay
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.plane import REQUEST_S, World
from tests.support.memory.socket_talk import Sockets, Talk
from tests.support.memory.twin import Twin, resource

DONE = {
    "type": "response.completed",
    "response": {"id": "resp_1", "object": "response"},
}


def made(root: Path) -> World:
    return World(root, Twin(resource("a"), resource("b")))


async def joined(root: Path) -> tuple[World, Sockets, Talk]:
    world = made(root)
    sockets = Sockets(world)
    return world, sockets, await sockets.opened()


@timeless
async def test_frames_pass_untouched_both_ways(tmp_path: Path) -> None:
    _, sockets, talk = await joined(tmp_path)
    up: list[Any] = ["not an object", {"type": "odd", "ü": [1]}, b"\x00\xff"]
    await talk.says('"not an object"')
    await talk.says({"type": "odd", "ü": [1]})
    await talk.says(b"\x00\xff")
    upstream = sockets.upstream()
    assert upstream.hears() == up
    upstream.says({"type": "response.created", "x": 1.50})
    upstream.protocol.send_binary(b"\x00")
    upstream.hears()
    await settled()
    assert talk.hears() == [{"type": "response.created", "x": 1.5}, b"\x00"]
    await talk.closes()
    await talk.ended()


@timeless
async def test_a_client_that_closes_ends_the_upstreams_socket(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    await talk.closes()
    assert sockets.upstream().close_code == 1000
    await talk.ended()
    (row,) = world.requests
    assert (row["outcome"], row.get("error_code")) == ("cancelled", None)
    world.is_at_rest()


@pytest.mark.parametrize(
    ("code", "reason", "passed"),
    [(1000, "bye", 1000), (1011, "ours", 1011), (4001, "own", 4001), (None, "", 1000)],
)
@timeless
async def test_an_upstreams_close_is_passed_on(
    tmp_path: Path, code: int | None, reason: str, passed: int
) -> None:
    world, sockets, talk = await joined(tmp_path)
    sockets.upstream().closes(code, reason)
    await settled()
    sockets.upstream().hears()  # our close, upon which it hangs up
    await settled()
    assert talk.hears() == []
    received = talk.peer.protocol.close_rcvd
    assert received == Close(passed, reason)
    await talk.ended()
    assert world.requests == []


@timeless
async def test_an_upstream_that_breaks_off_fails_what_ran(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m", stream_id="one")
    await talk.creates(model="m", stream_id="two")
    sockets.upstream().wire.hangs_up()
    await talk.ended()
    told = talk.hears()
    assert [frame["stream_id"] for frame in told] == ["one", "two"]
    assert {frame["error"]["code"] for frame in told} == {"upstream_unreachable"}
    assert talk.close_code == 1011
    assert [row["outcome"] for row in world.requests] == ["failed", "failed"]
    assert all(r.verdict and r.verdict.kind == "fault" for r in world.twin.released)
    world.is_at_rest()


@timeless
async def test_an_event_that_is_too_large_is_not_the_upstreams_fault(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    upstream = sockets.upstream()
    # A frame's head already gives its length.
    upstream.wire.feed(b"\x81\x7f" + (1 << 40).to_bytes(8, "big"))
    await talk.ended()
    (told,) = talk.hears()
    assert "more than this gateway takes" in told["error"]["message"]
    assert talk.close_code == 1009
    assert world.twin.released[-1].verdict is not None
    assert world.twin.released[-1].verdict.kind == "neutral"


@timeless
async def test_a_request_without_an_answer_in_time_ends_the_socket(
    tmp_path: Path,
) -> None:
    world, _, talk = await joined(tmp_path)
    await talk.creates(model="m")
    began = clock().time()
    await talk.ended()
    # The upstream does not answer our close either.
    assert clock().time() - began == pytest.approx(REQUEST_S, abs=10)
    (told,) = talk.hears()
    assert "no answer in time" in told["error"]["message"]
    assert talk.close_code == 1011
    release = world.twin.released[-1]
    assert release.verdict is not None
    assert (release.verdict.kind, release.verdict.cause) == ("fault", "timeout")


@timeless
async def test_an_answer_in_time_stops_the_clock(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    for _ in range(2):
        await talk.creates(model="m")
        clock().advance(REQUEST_S - 1)
        await settled()
        sockets.upstream().says(DONE)
        await settled()
    clock().advance(REQUEST_S + 1)
    await settled()
    assert talk.hears() == [DONE, DONE]
    assert not talk.task.done()
    assert [row["outcome"] for row in world.requests] == ["completed"] * 2
    await talk.closes()
    await talk.ended()


@timeless
async def test_a_client_that_does_not_read_is_to_blame_itself(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    protocol = talk.wire.get_protocol()
    assert isinstance(protocol, asyncio.Protocol)
    protocol.pause_writing()
    sockets.upstream().says({"type": "response.created"})
    await settled()
    await talk.ended()
    assert world.requests[0]["error_code"] == "client_stalled"
    assert world.twin.released[-1].verdict is not None
    assert world.twin.released[-1].verdict.kind == "neutral"


@timeless
async def test_a_frame_that_its_key_does_not_allow_is_over_alone(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    sockets.upstream().says(DONE)
    await settled()
    talk.hears()
    world.gate.enter = refusing(world)  # type: ignore[method-assign]
    await talk.creates(model="m", stream_id="two")
    (told,) = talk.hears()
    assert (told["status"], told["stream_id"]) == (429, "two")
    assert not talk.task.done()
    await talk.closes()
    await talk.ended()
    assert [row["outcome"] for row in world.requests] == ["completed", "failed"]


def refusing(world: World) -> Any:
    """As if the socket's key had reached a limit."""
    world.table.reached = Reached("requests", 1000)

    async def enter(_: object) -> Principal:
        return Principal(id="k", requests_per_minute=1)

    return enter


@timeless
async def test_a_socket_whose_key_was_removed_is_closed(tmp_path: Path) -> None:
    world, _, talk = await joined(tmp_path)
    await talk.creates(model="m")

    async def gone(*_: object, **__: object) -> None:
        raise OwnerGone

    world.twin.pin = gone  # type: ignore[assignment, method-assign]
    await talk.creates(model="m")
    await talk.ended()
    told = talk.hears()
    assert {frame["error"]["code"] for frame in told} == {"upstream_unreachable"}
    assert "removed" in told[0]["error"]["message"]
    assert talk.close_code == 1012
    world.is_at_rest()


@timeless
async def test_a_fault_of_ours_ends_the_socket_and_is_said(tmp_path: Path) -> None:
    world, _, talk = await joined(tmp_path)

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    world.twin.pin = broken  # type: ignore[assignment, method-assign]
    await talk.creates(model="m")
    await talk.ended()
    (told,) = talk.hears()
    assert told["error"]["code"] == "internal_error"
    assert talk.close_code == 1011
    world.is_at_rest()


@timeless
async def test_a_cancelled_socket_is_closed_at_both_ends(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    talk.task.cancel()
    await talk.ended()
    assert sockets.upstream().close_code == 1000
    assert world.requests[0]["outcome"] == "cancelled"
    world.is_at_rest()


@timeless
async def test_a_relay_that_ends_before_it_begins_leaves_nothing_unawaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()
    started = SocketRelay.run

    async def run(relay: SocketRelay) -> None:
        relay.finish(RETIRED)
        await started(relay)

    monkeypatch.setattr(SocketRelay, "run", run)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sockets.upstream().accepts()
        await talk.ended()
        gc.collect()
    assert [str(warning.message) for warning in said] == []
