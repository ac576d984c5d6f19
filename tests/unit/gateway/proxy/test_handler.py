"""Requests under way: clients that do not read are given up, and a gateway that
stops interrupts the rest."""

from pathlib import Path

import pytest

from services.gateway.proxy.handler import CLIENT_GRACE_S
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.plane import REQUEST_S, World, answer
from tests.support.memory.requests import (
    CREATED,
    STREAMING,
    asked,
    one_row,
)
from tests.support.memory.twin import Twin


@timeless
async def test_a_client_that_does_not_read_does_not_hold_its_lease_for_ever(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    client.connection.pause_writing()
    upstream.feed(STREAMING + CREATED)
    await settled()
    world.plane.check(clock().time() + REQUEST_S + CLIENT_GRACE_S)
    await settled()
    assert world.requests == []
    world.plane.check(clock().time() + REQUEST_S + CLIENT_GRACE_S + 0.1)
    row = await one_row(world)
    assert (row["outcome"], row["error_code"]) == ("failed", "client_stalled")
    assert client.wire.aborted
    (release,) = twin.released
    assert release.verdict is not None
    assert release.verdict.kind == "neutral"


@pytest.mark.parametrize(
    ("fed", "ends"),
    [
        pytest.param(b"", b'"code":"gateway_restarts"}}', id="before the answer"),
        pytest.param(STREAMING + CREATED, b"0\r\n\r\n", id="in a stream"),
        pytest.param(answer()[:-1], b"", id="in JSON"),
    ],
)
@timeless
async def test_a_restart_is_told_to_whoever_can_be_told(
    tmp_path: Path, twin: Twin, fed: bytes, ends: bytes
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    upstream.feed(fed)
    await settled()
    world.plane.interrupt()
    row = await one_row(world)
    assert row["outcome"] == "interrupted"
    assert client.wire.sent.endswith(ends)
    assert client.wire.aborted is (ends == b"")


@timeless
async def test_requests_in_time_are_left_alone(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    world.plane.check(clock().time() + REQUEST_S + CLIENT_GRACE_S)
    await settled()
    upstream.feed(answer())
    assert (await one_row(world))["outcome"] == "completed"
    assert client.status == 200


@timeless
async def test_all_requests_under_way_are_interrupted(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    assert not world.plane.interrupt()
    clients = [(await asked(world))[0] for _ in range(3)]
    assert world.plane.interrupt()
    await settled()
    world.is_at_rest()
    assert [row["outcome"] for row in world.requests] == ["interrupted"] * 3
    assert {row["status_code"] for row in world.requests} == {503}
    assert {client.code for client in clients} == {"gateway_restarts"}
    assert {client.head[b"retry-after"] for client in clients}
    assert not world.plane.interrupt()


@timeless
async def test_a_request_that_stalls_before_its_answer_is_given_up(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin)
    client, upstream = await asked(world)
    world.plane.check(clock().time() + REQUEST_S + CLIENT_GRACE_S + 1)
    assert (await one_row(world))["outcome"] == "cancelled"
    assert upstream.aborted
    assert client.wire.aborted
