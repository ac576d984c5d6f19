"""Requests that are too large, too slow, or too many at once."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.server.bad_input.calls import ASK, CHUNKED, HEAD, SETTINGS, told
from tests.support.clients import raw
from tests.support.clients.raw import calling, get, post
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.tasks import beside
from tests.support.processes.waiting import eventually

pytest_plugins = ["tests.support.processes.standing"]
pytestmark = pytest.mark.asyncio(loop_scope="module")
GATEWAY = SETTINGS


class TestSizes:
    LARGE = b"x-large: " + b"x" * 66_000

    async def test_a_large_head_is_431(self, stack: Stack) -> None:
        data = get(b"/v1/models", self.LARGE)
        assert await told(stack, data) == (431, "headers_too_large")

    async def test_however_it_is_cut(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            data = get(b"/v1/models", self.LARGE)
            for start in range(0, len(data), 8_000):
                await caller.send(data[start : start + 8_000])
                await asyncio.sleep(0.002)
            assert (await caller.reply()).code == "headers_too_large"

    async def test_a_head_that_never_ends_is_431(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(HEAD + b"x-a: b\r\n" * 100_000)
            assert (await caller.reply()).status == 431

    async def test_many_headers_are_431(self, stack: Stack) -> None:
        data = get(b"/v1/models", *[b"x-a: b"] * 128)
        assert await told(stack, data) == (431, "headers_too_large")

    async def test_a_long_path_is_431(self, stack: Stack) -> None:
        data = get(b"/v1/" + b"x" * 200_000)
        assert await told(stack, data) == (431, "headers_too_large")

    async def test_a_long_body_is_413_before_it_is_read(self, stack: Stack) -> None:
        data = HEAD + b"content-length: 2000001\r\n\r\n"
        assert await told(stack, data) == (413, "body_too_large")

    async def test_so_is_one_in_chunks(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(CHUNKED + raw.chunk(b"x" * 100_000) * 30)
            assert (await caller.reply()).status == 413

    async def test_trailers_without_end_are_431(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(CHUNKED + b"0\r\n" + b"x-a: b\r\n" * 400_000)
            assert (await caller.reply()).status == 431

    async def test_extensions_of_chunks_without_end_are_431(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(CHUNKED + b"1;" + b"x" * 4_000_000)
            assert (await caller.reply()).status == 431

    async def test_a_body_of_tiny_chunks_weighs_what_it_brings(
        self, stack: Stack
    ) -> None:
        memory = raw.resident_mb(stack.gateway.pid)
        async with calling(stack.origin) as caller:
            await caller.send(CHUNKED + b"2\r\nab\r\n" * 900_000)
            await caller.send(b"1\r\n")
            await raw.read_by_gateway(stack)
            assert raw.resident_mb(stack.gateway.pid) < memory + 12


class TestTimes:
    async def test_a_slow_head_is_408(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            async with beside(_trickle(caller, HEAD)):
                assert (await caller.reply()).code == "request_timeout"
            assert await caller.closed() == b""

    async def test_a_body_that_stops_is_408(self, stack: Stack) -> None:
        assert await told(stack, post(ASK)[:-1]) == (408, "request_timeout")

    async def test_a_body_that_trickles_is_408(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(HEAD + b"content-length: 1000\r\n\r\n")
            async with beside(_trickle(caller, b"x" * 1000)):
                assert (await caller.reply()).code == "request_timeout"

    async def test_a_body_that_goes_on_may_take_its_time(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            await caller.send(HEAD + b"content-length: 60000\r\n\r\n")
            for _ in range(30):
                await caller.send(b"x" * 2000)
                await asyncio.sleep(0.1)
            assert (await caller.reply()).status == 400  # the upstream's status

    async def test_a_connection_without_a_request_is_closed(self, stack: Stack) -> None:
        async with calling(stack.origin) as caller:
            assert await caller.closed() == b""
        async with calling(stack.origin) as caller:
            await caller.send(get(b"/healthz"))
            assert (await caller.reply()).status == 200
            assert await caller.closed() == b""

    async def test_an_answer_that_is_never_read_holds_no_lease(
        self, stack: Stack
    ) -> None:
        before = {event["id"] for event in await stack.events("request")}
        await stack.fault(event_gap_ms=0, body={"x": "y" * 8_000_000}, status=200)
        async with calling(stack.origin, buffer=4096) as caller:
            await caller.send(post(ASK))

            async def ended() -> list[dict[str, Any]]:
                events = await stack.events("request")
                return [event for event in events if event["id"] not in before]

            (event,) = await eventually(ended)
            assert event["error_code"] == "client_stalled"
            assert await stack.in_flight() == 0


async def _trickle(caller: raw.Caller, data: bytes) -> None:
    for position in range(len(data)):
        await caller.send(data[position : position + 1])
        await asyncio.sleep(0.05)


async def test_a_surplus_connection_takes_an_idle_ones_place_or_is_told(
    valkey: str, tmp_path: Path
) -> None:
    async with gateway_stack(valkey, tmp_path, PROXY_MAX_CONNECTIONS="16") as stack:
        await _fill(stack)


async def _fill(stack: Stack) -> None:
    async with AsyncExitStack() as callers:
        idle = await callers.enter_async_context(calling(stack.origin))
        await idle.send(get(b"/healthz"))
        await idle.reply()
        busy = []
        for _ in range(15):
            busy.append(await callers.enter_async_context(calling(stack.origin)))
            await busy[-1].send(HEAD)
        async with calling(stack.origin) as late:
            await late.send(HEAD)
            assert await idle.closed() == b""
            async with calling(stack.origin) as surplus:
                await surplus.send(get(b"/healthz"))
                reply = await surplus.reply()
                assert (reply.status, reply.code) == (503, "no_capacity")
                assert reply.headers["retry-after"] == "1"
                assert await surplus.closed() == b""
    await eventually(lambda: raw.at_rest(stack))
