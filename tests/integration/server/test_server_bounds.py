"""Limits of what clients can make a gateway hold, with or without a key."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from libs.common.proxy_keys import Principal
from libs.common.redis.client import ClientCaller
from libs.common.redis.key_table import KeyTable
from libs.common.runtime.log_limit import MOST_A_MINUTE
from tests.integration.websocket.test_server_sockets import CREATE, received
from tests.support.clients import raw
from tests.support.clients.frames import PING, PONG, TEXT, UPGRADE, frame
from tests.support.clients.raw import Caller, calling, get, post
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
LARGEST = 2_000_000
MEMORY = 3_000_000
ASK = b'{"model":"gpt-5.5","input":"hi"}'
LARGE = ASK[:-1] + b" " * 1_900_000 + b"}"
SOMEBODY = Principal(id="key-1")
LACKING = post(LARGE)[:-1]  # without its last byte


@pytest_asyncio.fixture
async def stack(valkey: str, tmp_path: Path) -> AsyncIterator[Stack]:
    async with gateway_stack(
        valkey,
        tmp_path,
        PROXY_MAX_BODY_BYTES=str(LARGEST),
        PROXY_BODY_MEMORY_BYTES=str(MEMORY),
    ) as stack:
        yield stack
        await eventually(lambda: holds(stack, 0))
        await eventually(lambda: raw.at_rest(stack))


async def holds(stack: Stack, count: int) -> bool:
    return await raw.gauge(stack, "body_bytes") == count


async def refused(caller: Caller) -> bool:
    reply = await caller.reply()
    assert reply.headers["retry-after"] == "1"
    return (reply.status, reply.code) == (503, "no_capacity")


async def test_large_bodies_have_a_memory_in_common(stack: Stack) -> None:
    async with calling(stack.origin) as first, calling(stack.origin) as second:
        await first.send(LACKING)
        await eventually(lambda: holds(stack, len(LARGE) - 1))
        await second.send(LACKING)
        assert await refused(second)
        # Small bodies are limited by the number of connections, and still pass.
        async with calling(stack.origin) as small:
            await small.send(post(ASK))
            assert (await small.reply()).status == 200
        await first.send(LARGE[-1:])
        assert (await first.reply()).status == 200
        await eventually(lambda: holds(stack, 0))
        await first.send(post(LARGE))  # there is room again
        assert (await first.reply()).status == 200


@pytest.mark.parametrize("way", raw.WAYS)
async def test_a_client_that_leaves_gives_its_room_back(
    stack: Stack, way: raw.Way
) -> None:
    async with calling(stack.origin) as caller:
        await caller.send(LACKING)
        await eventually(lambda: holds(stack, len(LARGE) - 1))
        caller.leave(way)
        await eventually(lambda: holds(stack, 0))


async def test_so_does_one_that_leaves_while_it_is_served(stack: Stack) -> None:
    await stack.fault(timeout=True)
    async with calling(stack.origin) as caller:
        await caller.send(
            post(LARGE) + LACKING[:300_000]
        )  # and the start of another one
        await eventually(stack.in_flight)
        caller.leave("rst")
        await eventually(lambda: holds(stack, 0))


async def test_so_does_one_that_is_refused(stack: Stack) -> None:
    async with calling(stack.origin) as caller:
        head = b"POST /v1/responses HTTP/1.1\r\nhost: proxy\r\n"
        await caller.send(head + b"transfer-encoding: chunked\r\n\r\n")
        await caller.send(raw.chunk(b"x" * 1_000_000) + b"no chunk\r\n")
        assert (await caller.reply()).code == "bad_request"
        await eventually(lambda: holds(stack, 0))


async def test_many_that_send_bodies_at_a_time_take_no_more_memory(
    stack: Stack,
) -> None:
    """This required no key."""
    before = raw.resident_mb(stack.gateway.pid)
    async with AsyncExitStack() as callers:
        for _ in range(40):
            caller = await callers.enter_async_context(calling(stack.origin))
            await caller.send(LACKING[:1_000_000])
        grown = raw.resident_mb(stack.gateway.pid) - before
        assert grown < 3 * MEMORY / 1e6 + 10
        await callers.aclose()
    async with calling(stack.origin) as caller:
        await caller.send(get(b"/healthz"))
        assert (await caller.reply()).status == 200


async def test_messages_of_sockets_take_of_the_same_room(stack: Stack) -> None:
    """Messages being received use the same room; a socket without room is closed with
    1013."""
    message = b"x" * (LARGEST - 1)
    sent = frame(TEXT, message)[:-1]
    async with calling(stack.origin) as first, calling(stack.origin) as second:
        for caller in (first, second):
            await caller.send(get(b"/v1/responses", *UPGRADE))
            assert (await caller.reply()).status == 101
        await first.send(sent)
        await eventually(lambda: holds(stack, len(message) - 1))
        await second.send(sent)
        assert b"\x03\xf5" in await second.closed()  # 1013
        first.leave("rst")
        await eventually(lambda: holds(stack, 0))


async def test_pings_and_whole_messages_take_no_room(stack: Stack) -> None:
    large = CREATE[:-1] + b" " * 100_000 + b"}"
    async with calling(stack.origin) as caller:
        await caller.send(get(b"/v1/responses", *UPGRADE))
        assert (await caller.reply()).status == 101
        await caller.send(frame(TEXT, large))
        await received(caller)
        await caller.send(frame(PING, b"x" * 125) * 1_000)
        while (await received(caller))[0] != PONG:
            pass
        await eventually(lambda: holds(stack, 0))


async def test_what_is_refused_before_it_is_accepted_is_counted_only(
    stack: Stack,
) -> None:
    """It writes no row and few log lines, so that a flood cannot fill either."""
    await KeyTable(ClientCaller(stack.redis)).change(None, {"0" * 64: SOMEBODY})
    stranger = post(ASK, b"authorization: Bearer rpx_stranger")
    async with calling(stack.origin) as caller:

        async def known() -> bool:
            await caller.send(stranger)
            return (await caller.reply()).code == "invalid_proxy_key"

        await eventually(known)
        before = await refusals(caller)
        for _ in range(50):
            assert await known()
        assert await refusals(caller) == before + 50
    assert await stack.events("request") == []
    lines = stack.gateway.log.read_text().splitlines()
    logged = [line for line in lines if '"invalid_proxy_key"' in line]
    assert 0 < len(logged) <= MOST_A_MINUTE


async def refusals(caller: Caller) -> float:
    await caller.send(get(b"/metrics"))
    shown = (await caller.reply()).body.decode()
    sign = 'proxy_refused_total{code="invalid_proxy_key"} '
    (line,) = [line for line in shown.splitlines() if line.startswith(sign)]
    return float(line.removeprefix(sign))
