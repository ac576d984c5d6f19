"""Relays between two sockets: messages, timeouts, and how an end of one side reaches
the other."""

import asyncio
import gc
import warnings
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Close

from libs.common.bodies.hints import LARGEST_QUICK
from libs.common.proxy_keys import Principal
from libs.common.routing.types import KeyLimited
from services.gateway.proxy.services import Limits
from services.gateway.websocket import handler
from services.gateway.websocket.client import CLOSE_TIMEOUT_S
from services.gateway.websocket.relay import HOLD_S, RESTARTING, End, SocketRelay
from tests.support.clients.websocket_peer import Upstream
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
async def test_messages_pass_unchanged_both_ways(tmp_path: Path) -> None:
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
async def test_a_close_of_the_client_closes_the_upstreams_socket(
    tmp_path: Path,
) -> None:
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
async def test_a_close_of_the_upstream_is_forwarded(
    tmp_path: Path, code: int | None, reason: str, passed: int
) -> None:
    world, sockets, talk = await joined(tmp_path)
    sockets.upstream().closes(code, reason)
    await settled()
    sockets.upstream().hears()  # reads the answer and closes the connection
    await settled()
    assert talk.hears() == []
    received = talk.peer.protocol.close_rcvd
    assert received == Close(passed, reason)
    await talk.ended()
    assert world.requests == []


@timeless
async def test_a_lost_upstream_fails_every_request_whose_answer_began(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    for lane in ("one", "two"):
        await talk.creates(model="m", stream_id=lane)
        begun = {"type": "response.output_item.added", "stream_id": lane}
        sockets.upstream().says(begun)
    await settled()
    sockets.upstream().wire.hangs_up()
    await talk.ended()
    *_, one, two = talk.hears()
    assert [frame["stream_id"] for frame in (one, two)] == ["one", "two"]
    assert {frame["error"]["code"] for frame in (one, two)} == {"upstream_unreachable"}
    assert talk.close_code == 1011
    assert [row["outcome"] for row in world.requests] == ["failed", "failed"]
    assert all(r.verdict and r.verdict.kind == "fault" for r in world.twin.released)
    world.is_at_rest()


@timeless
async def test_an_event_that_is_too_large_is_no_fault_of_the_resource(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    upstream = sockets.upstream()
    # The header of a frame of 1 TiB.
    upstream.wire.feed(b"\x81\x7f" + (1 << 40).to_bytes(8, "big"))
    await talk.ended()
    (told,) = talk.hears()
    assert "more than this gateway accepts" in told["error"]["message"]
    assert talk.close_code == 1009
    assert world.twin.released[-1].verdict is not None
    assert world.twin.released[-1].verdict.kind == "neutral"


@timeless
async def test_a_message_over_the_limit_closes_the_socket(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.says(b"x" * (world.limits.body_bytes + 1))
    talk.hears()
    assert talk.close_code == 1009
    assert sockets.upstream().close_code == 1000
    await talk.ended()
    world.is_at_rest()


@timeless
async def test_a_large_event_is_read_before_it_is_relayed(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    large = DONE | {"x": "y" * LARGEST_QUICK}
    sockets.upstream().says(large)
    while not world.requests:
        await settled()
    assert talk.hears() == [large]
    assert world.requests[0]["outcome"] == "completed"
    await talk.closes()
    await talk.ended()


@timeless
async def test_a_message_to_a_closing_upstream_is_dropped(tmp_path: Path) -> None:
    _, sockets, talk = await joined(tmp_path)
    upstream = sockets.upstream()
    upstream.protocol.send_close(1000, "bye")
    # Both in one turn of the loop: the relay reads the message first.
    talk.peer.protocol.send_text(b"late")
    talk.wire.feed(talk.peer.sends())
    upstream.wire.feed(*upstream.protocol.data_to_send())
    await settled()
    assert upstream.hears() == []
    await talk.ended()
    talk.hears()
    assert talk.peer.protocol.close_rcvd == Close(1000, "bye")


@timeless
async def test_a_message_to_a_lost_upstream_is_dropped(tmp_path: Path) -> None:
    _, sockets, talk = await joined(tmp_path)
    upstream = sockets.upstream()
    talk.peer.protocol.send_text(b"late")
    talk.wire.feed(talk.peer.sends())
    upstream.wire.hangs_up()
    await talk.ended()
    assert upstream.hears() == []
    talk.hears()
    assert talk.close_code == 1011


@timeless
async def test_only_the_first_end_counts(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    (relay,) = sockets.plane._relays
    relay.finish(RESTARTING)
    relay.finish(End(1000))
    await talk.ended()
    talk.hears()
    assert talk.close_code == 1012
    world.is_at_rest()


@timeless
async def test_a_request_that_times_out_ends_the_socket(
    tmp_path: Path,
) -> None:
    world, _, talk = await joined(tmp_path)
    await talk.creates(model="m")
    began = clock().time()
    await talk.ended()
    # The upstream does not answer the close frame either.
    assert clock().time() - began == pytest.approx(REQUEST_S, abs=10)
    (told,) = talk.hears()
    assert "no answer in time" in told["error"]["message"]
    assert talk.close_code == 1011
    release = world.twin.released[-1]
    assert release.verdict is not None
    assert (release.verdict.kind, release.verdict.cause) == ("fault", "timeout")


@timeless
async def test_an_answer_stops_the_timer(tmp_path: Path) -> None:
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
async def test_a_client_that_does_not_read_is_no_fault_of_the_resource(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    protocol = talk.wire.get_protocol()
    assert isinstance(protocol, asyncio.Protocol)
    protocol.pause_writing()
    sockets.upstream().says({"type": "response.output_item.added"})
    await settled()
    await talk.ended()
    assert world.requests[0]["error_code"] == "client_stalled"
    await asyncio.sleep(CLOSE_TIMEOUT_S)
    assert talk.wire.aborted
    assert world.twin.released[-1].verdict is not None
    assert world.twin.released[-1].verdict.kind == "neutral"


@pytest.mark.interpreted
@timeless
async def test_a_request_that_is_not_admitted_fails_alone(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    sockets.upstream().says(DONE)
    await settled()
    talk.hears()
    world.access.enter = refusing(world)  # type: ignore[method-assign]
    await talk.creates(model="m", stream_id="two")
    (told,) = talk.hears()
    assert (told["status"], told["stream_id"]) == (429, "two")
    assert not talk.task.done()
    await talk.closes()
    await talk.ended()
    assert [row["outcome"] for row in world.requests] == ["completed", "failed"]


def refusing(world: World) -> Any:
    """Return a `Gate.enter` that finds a key whose limit is reached."""
    world.twin.says.append(KeyLimited("requests", 1000))

    async def enter(_: object) -> Principal:
        return Principal(id="k", requests_per_minute=1)

    return enter


@timeless
async def test_an_internal_error_ends_the_socket(tmp_path: Path) -> None:
    world, _, talk = await joined(tmp_path)

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("ours")

    world.twin.acquire = broken  # type: ignore[assignment, method-assign]
    await talk.creates(model="m")
    await talk.ended()
    (told,) = talk.hears()
    assert told["error"]["code"] == "internal_error"
    assert talk.close_code == 1011
    world.is_at_rest()


@timeless
async def test_a_canceled_relay_closes_both_sockets(tmp_path: Path) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    talk.task.cancel()
    await talk.ended()
    assert sockets.upstream().close_code == 1000
    talk.hears()
    assert talk.close_code == 1001
    assert world.requests[0]["outcome"] == "cancelled"
    world.is_at_rest()


@timeless
async def test_a_relay_canceled_during_its_farewell_closes_both_sockets(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    protocol = talk.wire.get_protocol()
    assert isinstance(protocol, asyncio.Protocol)
    protocol.pause_writing()
    relay = next(iter(sockets.plane._relays))
    relay.finish(RESTARTING)
    await settled()
    assert not talk.task.done()  # the client does not read its last event
    talk.task.cancel()
    await settled()
    talk.hears()
    assert talk.close_code == 1012
    assert sockets.upstream().close_code == 1012
    await talk.ended()
    assert talk.task.cancelled()
    assert world.requests[0]["outcome"] == "interrupted"
    world.is_at_rest()


@timeless
async def test_a_relay_that_ends_before_it_starts_leaves_no_coroutine_unawaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = made(tmp_path)
    sockets = Sockets(world)
    talk = await sockets.asks()

    def ended(*args: Any) -> SocketRelay:
        relay = SocketRelay(*args)
        relay.finish(RESTARTING)
        return relay

    monkeypatch.setattr(handler, "SocketRelay", ended)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sockets.upstream().accepts()
        await talk.ended()
        gc.collect()
    assert [str(warning.message) for warning in said] == []


# Upstream sockets --------------------------------------------------------------

CREATED = {
    "type": "response.created",
    "response": {"id": "resp_0", "object": "response"},
}
DEAD = {
    "type": "error",
    "status": 429,
    "error": {"code": "insufficient_quota", "message": "x"},
}


async def moved(sockets: Sockets) -> Upstream:
    """The upstream socket that was dialed last, opened."""
    upstream = sockets.upstream()
    upstream.accepts()
    await settled()
    return upstream


def closed(upstream: Upstream) -> bool:
    return upstream.close_code is not None


@pytest.mark.parametrize("begun", [False, True])
@timeless
async def test_a_turn_that_fails_before_its_output_goes_elsewhere(
    tmp_path: Path, begun: bool
) -> None:
    world, sockets, talk = await joined(tmp_path)
    first = sockets.upstream()
    await talk.creates(model="m")
    (frame,) = first.hears()
    if begun:
        first.says(CREATED)
        first.says({"type": "codex.rate_limits"})
    first.says(DEAD)
    await settled()
    second = await moved(sockets)
    assert second.hears() == [frame]
    assert first.close_code == 1000  # nothing needs it any more
    second.says(CREATED)
    second.says(DONE)
    await settled()
    assert talk.hears() == [CREATED, DONE]
    await talk.closes()
    await talk.ended()
    (row,) = world.requests
    assert (row["outcome"], row["attempts"]) == ("completed", 2)
    assert [d.get("cause") for d in world.decisions] == [None, "insufficient_quota"]
    kinds = [r.verdict and r.verdict.kind for r in world.twin.released]
    assert kinds == ["exhausted", "ok"]
    world.is_at_rest()


@timeless
async def test_the_events_before_the_output_are_held_for_a_moment_only(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    sockets.upstream().says(CREATED)
    await settled()
    assert talk.hears() == []
    clock().advance(HOLD_S)
    await settled()
    assert talk.hears() == [CREATED]
    sockets.upstream().says(DEAD)  # too late for another resource
    await settled()
    assert talk.hears() == [DEAD]
    await talk.closes()
    await talk.ended()
    assert [row["outcome"] for row in world.requests] == ["failed"]
    world.is_at_rest()


@timeless
async def test_a_lost_upstream_is_replaced_for_turns_without_output(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    for lane in ("one", "two"):
        await talk.creates(model="m", stream_id=lane)
    sockets.upstream().wire.hangs_up()
    await settled()
    second = await moved(sockets)
    assert len(world.upstreams) == 2  # one for both
    assert [frame["stream_id"] for frame in second.hears()] == ["one", "two"]
    for lane in ("two", "one"):
        second.says(DONE | {"stream_id": lane})
    await settled()
    assert [frame["stream_id"] for frame in talk.hears()] == ["two", "one"]
    await talk.closes()
    await talk.ended()
    assert [row["attempts"] for row in world.requests] == [2, 2]
    world.is_at_rest()


@timeless
async def test_an_error_passes_when_the_next_turn_of_its_lane_is_being_answered(
    tmp_path: Path,
) -> None:
    """Its retry would be answered after that one."""
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    await talk.creates(model="m")
    sockets.upstream().says(DEAD)
    await settled()
    assert talk.hears() == [DEAD]
    sockets.upstream().says(DONE)
    await settled()
    assert talk.hears() == [DONE]
    await talk.closes()
    await talk.ended()
    assert [row["outcome"] for row in world.requests] == ["failed", "completed"]
    world.is_at_rest()


@timeless
async def test_a_turn_waits_for_the_one_before_it_on_another_socket(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    first = sockets.upstream()
    await talk.creates(model="m", stream_id="one")
    first.says({"type": "response.output_item.added", "stream_id": "one"})
    await settled()
    # Another lane finds out that the key is dead.
    await talk.creates(model="m", stream_id="two")
    first.says(DEAD | {"stream_id": "two"})
    await settled()
    second = await moved(sockets)
    await talk.creates(model="n", stream_id="one")
    assert [frame["stream_id"] for frame in second.hears()] == ["two"]
    assert not closed(first)  # lane one is still answered there
    first.says(DONE | {"stream_id": "one"})
    await settled()
    assert [frame["model"] for frame in second.hears()] == ["n"]
    assert closed(first)
    await talk.closes()
    await talk.ended()
    world.is_at_rest()


@timeless
async def test_an_older_socket_that_is_lost_fails_its_turns_alone(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    first = sockets.upstream()
    await talk.creates(model="m", stream_id="one")
    first.says({"type": "response.output_item.added", "stream_id": "one"})
    await talk.creates(model="m", stream_id="two")
    first.says(DEAD | {"stream_id": "two"})
    await settled()
    second = await moved(sockets)
    talk.hears()
    first.wire.hangs_up()
    await settled()
    (told,) = talk.hears()
    assert (told["stream_id"], told["status"]) == ("one", 502)
    second.says(DONE | {"stream_id": "two"})
    await settled()
    assert len(talk.hears()) == 1
    await talk.closes()
    await talk.ended()
    assert [row["outcome"] for row in world.requests] == ["failed", "completed"]
    world.is_at_rest()


@timeless
async def test_when_nobody_else_can_serve_the_upstreams_error_is_told(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, Twin(resource("a")))
    sockets = Sockets(world)
    talk = await sockets.opened()
    await talk.creates(model="m")
    limited = DEAD | {"error": {"code": "rate_limit_exceeded", "message": "x"}}
    sockets.upstream().says(limited)
    await settled()
    (told,) = talk.hears()
    assert told == limited | {"headers": {"retry-after": "30"}}
    assert not talk.task.done()
    await talk.closes()
    await talk.ended()
    (row,) = world.requests
    assert (row["outcome"], row["status_code"], row["attempts"]) == ("failed", 429, 1)
    world.is_at_rest()


@timeless
async def test_a_client_that_leaves_while_a_turn_looks_for_a_resource(
    tmp_path: Path,
) -> None:
    world, sockets, talk = await joined(tmp_path)
    await talk.creates(model="m")
    sockets.upstream().says(DEAD)
    await settled()
    assert len(world.upstreams) == 2  # which does not answer the upgrade
    await talk.closes()
    await talk.ended()
    (row,) = world.requests
    assert (row["outcome"], row["attempts"]) == ("cancelled", 2)
    world.is_at_rest()


@timeless
async def test_a_first_turn_needs_no_attempt_beyond_its_upgrade(tmp_path: Path) -> None:
    limits = Limits(100_000, 1, REQUEST_S)
    world = World(tmp_path, Twin(resource("a"), resource("b")), limits=limits)
    sockets = Sockets(world)
    talk = await sockets.opened()
    for _ in range(2):
        await talk.creates(model="m")
        sockets.upstream().says(DONE)
        await settled()
    assert talk.hears() == [DONE, DONE]
    await talk.creates(model="m")
    sockets.upstream().says(DEAD)
    await settled()
    assert talk.hears()[0]["error"]["code"] == "insufficient_quota"
    await talk.closes()
    await talk.ended()
    assert [row["attempts"] for row in world.requests] == [1, 1, 1]
    world.is_at_rest()
