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
