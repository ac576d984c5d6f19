"""Errors of upstreams: read whole within bounds, and passed on."""

import json
import zlib
from pathlib import Path

import pytest

from libs.common.headers import Header
from services.gateway.proxy.failures import LARGEST, READ_S
from services.gateway.proxy.failures import with_whole_retry_after as whole
from services.gateway.proxy.services import Limits
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.plane import REQUEST_S, World, answer, error
from tests.support.memory.requests import (
    asked,
    one_row,
)
from tests.support.memory.twin import Twin, resource


@timeless
async def test_a_429_that_is_passed_on_says_when_to_come_again(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, limits=Limits(1000, 1, REQUEST_S, pause_ms=4000))
    client, upstream = await asked(world)
    upstream.feed(error(429))
    await one_row(world)
    assert (client.status, client.head[b"retry-after"]) == (429, b"4")


@timeless
async def test_a_packed_refusal_is_read_and_passed_on_packed(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, limits=Limits(1000, 1, REQUEST_S))
    client, upstream = await asked(world)
    packed = zlib.compress(b'{"error":{"code":"odd","message":"x"}}')
    upstream.feed(answer(packed, (b"content-encoding", b"deflate"), status=500))
    assert (await one_row(world))["error_code"] == "odd"
    assert client.body == packed


@timeless
async def test_a_refusal_that_never_ends_is_not_waited_for(
    tmp_path: Path, twin: Twin
) -> None:
    world = World(tmp_path, twin, limits=Limits(1000, 1, REQUEST_S))
    began = clock().time()
    client, upstream = await asked(world)
    upstream.feed(b"HTTP/1.1 500 X\r\ncontent-length: 9\r\n\r\nhalf")
    while not client.wire.sent:
        await settled()
        clock().advance(0.5)
    assert clock().time() - began < READ_S + 2
    assert client.code == "upstream_unreachable"
    assert upstream.aborted


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"retry-after", b"7")], b"7"),
        ([(b"retry-after", b"0")], b"1"),
        ([(b"retry-after", b"1.2")], b"2"),
        ([(b"retry-after-ms", b"1500")], b"2"),
        ([], b"5"),
        ([(b"retry-after", b"soon")], b"5"),
    ],
)
def test_a_429_names_whole_seconds(headers: list[Header], seconds: bytes) -> None:
    found = [v for n, v in whole(headers, 5000) if n == b"retry-after"]
    assert found == [seconds]


@timeless
async def test_a_large_error_is_cut(tmp_path: Path, twin: Twin) -> None:
    world = World(tmp_path, twin, limits=Limits(1000, 1, REQUEST_S))
    client, upstream = await asked(world)
    upstream.feed(answer(b"x" * (LARGEST + 10_000), status=500)[: LARGEST + 5000])
    row = await one_row(world)
    assert client.status == 500
    assert LARGEST <= len(client.body) == row["response_bytes"] < LARGEST + 10_000
    assert upstream.aborted


@timeless
async def test_a_key_that_an_error_shows_is_masked(tmp_path: Path, twin: Twin) -> None:
    secret = "sk-proj-0123456789abcdef"
    world = World(tmp_path, twin, limits=Limits(1000, 1, REQUEST_S), capture=1000)
    world.keys.update(KEY_A=secret, KEY_B=secret, KEY_C=secret)
    client, upstream = await asked(world)
    assert secret.encode() in upstream.sent
    shown = f"Incorrect API key provided: {secret}"
    upstream.feed(error(401, shown, (b"x-key", secret.encode())))
    row = await one_row(world)
    assert secret.encode() not in client.wire.sent
    assert secret not in json.dumps(row)
    assert client.status == 401


@timeless
async def test_the_connection_of_an_error_that_was_read_is_used_again(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, Twin(resource("a")), limits=Limits(1000, 1, REQUEST_S))
    for _ in range(2):
        _, upstream = await asked(world)
        upstream.feed(error(404))
        await settled()
    assert len(world.upstreams) == 1
    assert not upstream.is_closing()
    world.is_at_rest()
