"""Gateways that are stopped under load: accepted requests are served, and behind one
address no request is lost."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from libs.cli.commands import service_command
from tests.support.clients import raw
from tests.support.clients.raw import Caller, calling, post
from tests.support.processes.balancer import balancing
from tests.support.processes.ports import free_port
from tests.support.processes.processes import Process, wait_for
from tests.support.processes.stack import Stack, gateway_stack
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
ASK = b'{"model":"gpt-5.5","input":"hi"}'
STREAM = b'{"model":"gpt-5.5","input":"hi","stream":true}'
STREAMS, SOCKETS, CALLERS = 100, 20, 8
UNANSWERED = "closed without an answer"
DRAW = random.Random(5)  # noqa: S311 - pauses, no secrets


class Load:
    """Clients that send requests all the time, on kept and on new connections, until
    they are refused or told to stop. As clients do, they ask again when a connection
    closes without a byte of an answer."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.seen: Counter[str] = Counter()
        self.over = False

    async def keep_asking(self, *, kept: bool) -> None:
        while not self.over:
            try:
                async with calling(self._origin) as caller:
                    await self._ask_on(caller, kept=kept)
            except ConnectionRefusedError:
                return

    async def _ask_on(self, caller: Caller, *, kept: bool) -> None:
        closes = False
        while not closes and not self.over:
            try:
                await caller.send(post(ASK))
                reply = await caller.reply()
            except (ConnectionError, asyncio.IncompleteReadError) as lost:
                cut = getattr(lost, "partial", b"")
                self.seen["cut" if cut else UNANSWERED] += 1
                return
            self.seen[str(reply.status)] += 1
            closes = not kept or reply.headers.get("connection") == "close"
            await asyncio.sleep(DRAW.random() * 0.05)


@asynccontextmanager
async def load_on(origin: str) -> AsyncIterator[Load]:
    load = Load(origin)
    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(load.keep_asking(kept=number % 2 == 0))
        await eventually(lambda: _busy(load))
        yield load
        load.over = True


async def _busy(load: Load) -> bool:
    return load.seen["200"] > 20


async def test_sigterm_under_load_loses_nothing_that_was_accepted(
    valkey: str, tmp_path: Path
) -> None:
    settings = {"PROXY_DRAIN_SECONDS": "60"}  # only a failure takes that long
    async with (
        gateway_stack(valkey, tmp_path, **settings) as stack,
        AsyncExitStack() as open_,
    ):
        await stack.fault(times=STREAMS, event_gap_ms=60)
        streams = []
        for _ in range(STREAMS):
            caller = await open_.enter_async_context(calling(stack.origin))
            await caller.send(post(STREAM))
            streams.append(caller)
        await asyncio.gather(*(caller.head() for caller in streams))
        url = stack.url.replace("http", "ws") + "/responses"
        sockets = [
            await open_.enter_async_context(connect(url, proxy=None))
            for _ in range(SOCKETS)
        ]
        async with load_on(stack.origin) as load:
            ending = asyncio.to_thread(stack.gateway.end)
            code, whole, codes = await asyncio.gather(
                ending,
                asyncio.gather(*(caller.closed() for caller in streams)),
                asyncio.gather(*(_close_code(socket) for socket in sockets)),
            )
        assert code == 0
        assert all(b"event: response.completed" in text for text in whole)
        assert all(text.endswith(b"0\r\n\r\n") for text in whole)
        assert codes == [1012] * SOCKETS
        # A gateway that ends closes connections without a request; a client that waits
        # for a core sends one too late. None of them was accepted.
        assert set(load.seen) <= {"200", UNANSWERED}
        assert await stack.in_flight() == 0
        outcomes = Counter(event["outcome"] for event in await stack.events("request"))
        assert outcomes == {"completed": STREAMS + load.seen["200"]}


async def _close_code(socket: ClientConnection) -> int | None:
    with suppress(ConnectionClosed):
        await socket.recv()
    return socket.close_code


async def test_a_rolling_restart_behind_nginx_loses_nothing(
    valkey: str, tmp_path: Path
) -> None:
    settings = {"PROXY_DRAIN_SECONDS": "60"}  # only a failure takes that long
    async with gateway_stack(valkey, tmp_path, **settings) as stack:
        other = {**stack.environ, "PROXY_PORT": str(free_port())}
        members = [
            Member(tmp_path, stack.environ, stack.gateway),
            Member(tmp_path, other),
        ]
        await members[1].ready()
        try:
            ports = [member.port for member in members]
            async with balancing(ports, tmp_path) as port, AsyncExitStack() as open_:
                origin = f"http://127.0.0.1:{port}"
                url = f"ws://127.0.0.1:{port}/v1/responses"
                sockets = [
                    await open_.enter_async_context(connect(url, proxy=None))
                    for _ in range(SOCKETS)
                ]
                async with load_on(origin) as load:
                    for member in members:
                        # The others may see some of these faults.
                        await stack.fault(times=STREAMS + CALLERS, event_gap_ms=60)
                        await _restarted_under_streams(member, origin)
                codes = await asyncio.gather(*map(_close_code, sockets))
                await _odd_requests_pass(stack, origin)
            assert set(load.seen) == {"200"}
            assert codes == [1012] * SOCKETS
        finally:
            for member in members:
                await asyncio.to_thread(member.process.end)
        await eventually(lambda: _no_lease(stack))
        outcomes = {event["outcome"] for event in await stack.events("request")}
        assert outcomes == {"completed"}


async def _restarted_under_streams(member: "Member", origin: str) -> None:
    async with AsyncExitStack() as open_:
        streams = [
            await open_.enter_async_context(calling(origin)) for _ in range(STREAMS)
        ]
        close = b"connection: close"
        await asyncio.gather(*(s.send(post(STREAM, close)) for s in streams))
        heads = await asyncio.gather(*(caller.head() for caller in streams))
        assert {status for status, _ in heads} == {200}
        whole, _ = await asyncio.gather(
            asyncio.gather(*(caller.closed() for caller in streams)), member.restart()
        )
    assert all(b"event: response.completed" in text for text in whole)
    assert all(text.endswith(b"0\r\n\r\n") for text in whole)


async def _odd_requests_pass(stack: Stack, origin: str) -> None:
    """Requests that nginx refuses or drops by default: a header with an underscore, a
    body of more than a megabyte."""
    body = b'{"model":"gpt-5.5","input":"%b"}' % (b"x" * 2_000_000)
    async with calling(origin) as caller:
        await caller.send(post(body, b"session_id: of-codex"))
        reply = await caller.reply()
    assert reply.status == 200
    row = await stack.request(reply.headers["x-proxy-request-id"])
    assert row["session_id"] == "of-codex"


class Member:
    """A gateway that is restarted."""

    def __init__(
        self, folder: Path, environ: dict[str, str], process: Process | None = None
    ) -> None:
        self._folder = folder
        self._environ = environ
        self.port = int(environ["PROXY_PORT"])
        self.process = process or self._started()

    def _started(self) -> Process:
        command = service_command("gateway", self._environ)
        log = self._folder / f"gateway-{self.port}.log"
        return Process(command, self._environ, log)

    async def ready(self) -> None:
        url = f"http://127.0.0.1:{self.port}/readyz"
        await asyncio.to_thread(wait_for, self.process, url)

    async def restart(self) -> None:
        assert await asyncio.to_thread(self.process.end) == 0
        self.process = self._started()
        await self.ready()


async def _no_lease(stack: Stack) -> bool:
    return await stack.in_flight() == 0


async def test_a_kept_connection_is_told_before_it_is_closed(
    valkey: str, tmp_path: Path
) -> None:
    async with gateway_stack(valkey, tmp_path) as stack, AsyncExitStack() as open_:
        quiet, asking = [
            await open_.enter_async_context(calling(stack.origin)) for _ in range(2)
        ]
        for caller in (quiet, asking):
            await caller.send(post(ASK))
            assert "connection" not in (await caller.reply()).headers
        # A connection without a request is closed after half a second.
        await asking.send(post(ASK)[:-1])
        await raw.read_by_gateway(stack)
        ending = asyncio.create_task(asyncio.to_thread(stack.gateway.end))
        await eventually(lambda: _refused(stack))
        await asking.send(post(ASK)[-1:])
        assert (await asking.reply()).headers["connection"] == "close"
        assert await asking.closed() == b""
        assert await quiet.closed() == b""
        assert await ending == 0


async def _refused(stack: Stack) -> bool:
    try:
        async with calling(stack.origin):
            return False
    except ConnectionRefusedError:
        return True


async def test_a_stream_that_outlives_the_drain_ends_in_response_failed(
    valkey: str, tmp_path: Path
) -> None:
    async with gateway_stack(valkey, tmp_path, PROXY_DRAIN_SECONDS="0.4") as stack:
        await stack.fault(stall_after=2)
        async with calling(stack.origin) as caller:
            await caller.send(post(STREAM))
            await caller.reader.readuntil(b"response.in_progress")
            ending = asyncio.create_task(asyncio.to_thread(stack.gateway.end))
            text = await caller.closed()
        assert await ending == 0
        assert b"event: response.failed" in text
        assert text.endswith(b"0\r\n\r\n")
        (row,) = await stack.events("request")
        assert row["outcome"] == "interrupted"
        assert await stack.in_flight() == 0


async def test_what_has_no_answer_when_the_drain_is_over_is_told(
    valkey: str, tmp_path: Path
) -> None:
    async with gateway_stack(valkey, tmp_path, PROXY_DRAIN_SECONDS="0.4") as stack:
        await stack.fault(timeout=True)
        async with calling(stack.origin) as caller:
            await caller.send(post(ASK))
            await eventually(lambda: _leased(stack))
            ending = asyncio.create_task(asyncio.to_thread(stack.gateway.end))
            reply = await caller.reply()
            assert (reply.status, reply.code) == (503, "gateway_restarts")
            assert await caller.closed() == b""
        assert await ending == 0
        (row,) = await stack.events("request")
        assert (row["outcome"], row["status_code"]) == ("interrupted", 503)


async def _leased(stack: Stack) -> bool:
    return await stack.in_flight() == 1
