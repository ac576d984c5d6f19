"""Admitting connections, dispatching requests, and shutdown. Connections are on wires,
without a listening socket."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from libs.common.browser_guard import Guard
from services.gateway.server.body_memory import Room
from services.gateway.server.browser_guard import BrowserGuard
from services.gateway.server.connection import ClientTimeouts, Connection
from services.gateway.server.request import Request
from services.gateway.server.server import (
    GRACE_S,
    LOOK_EVERY,
    MOST_REFUSED,
    SWEEP_S,
    Bounds,
    Server,
)
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.transports import Wire

GET = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
UPGRADE = (
    b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
    b"upgrade: websocket\r\n\r\n"
)


class Plane:
    """Answers with its name; waits if the test says so."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self.go = asyncio.Event()
        self.go.set()

    async def _serve(self, connection: Connection) -> None:
        try:
            await self.go.wait()
            connection.writer.send_whole(200, [], self._name)
        finally:
            connection.over()

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        return self._serve(connection)


class Sockets:
    def __init__(self) -> None:
        self.served: list[bytes] = []
        self.cancelled = 0

    async def serve(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None:
        self.served.append(rest)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


class House:
    """A server and its clients."""

    def __init__(self, most: int = 100) -> None:
        self.plane, self.control = Plane(b"plane"), Plane(b"control")
        self.sockets = Sockets()
        self.server = Server(
            self.plane,
            self.control,
            self.sockets,
            BrowserGuard(Guard()),
            bounds=Bounds(most, 1000, Room(1000)),
            timeouts=ClientTimeouts(),
        )

    async def client(self, sent: bytes = b"") -> Wire:
        wire = Wire(Connection(self.server, asyncio.get_running_loop()))
        wire.feed(sent)
        await settled()
        return wire


@pytest.mark.parametrize(
    ("target", "who"),
    [
        (b"/v1/models", b"plane"),
        (b"/v1/", b"plane"),
        (b"/v1", b"control"),
        (b"/admin/keys", b"control"),
        (b"/", b"control"),
        (b"http://x/v1/models", b"plane"),
    ],
)
@timeless
async def test_below_v1_is_the_data_planes_and_the_rest_is_not(
    target: bytes, who: bytes
) -> None:
    wire = await House().client(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % target)
    assert wire.sent.endswith(b"\r\n\r\n" + who)


@timeless
async def test_what_the_connection_refused_reaches_no_plane() -> None:
    wire = await House().client(b"nonsense\r\n\r\n")
    assert wire.sent.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"bad_request"' in wire.sent


# How many ----------------------------------------------------------------------


@timeless
async def test_when_there_are_too_many_an_idle_one_has_to_go() -> None:
    house = House(most=2)
    busy, idle = await house.client(GET[:5]), await house.client(GET)
    new = await house.client(GET)
    assert (busy.is_closing(), idle.closed) == (False, True)
    assert new.sent.startswith(b"HTTP/1.1 200 ")
    assert house.server.open == 2


@timeless
async def test_when_none_is_idle_the_new_one_is_told() -> None:
    house = House(most=1)
    await house.client(GET[:5])
    new = await house.client()
    assert new.sent.startswith(b"HTTP/1.1 503 ")
    assert b"PROXY_MAX_CONNECTIONS" in new.sent


@timeless
async def test_far_beyond_the_limit_nobody_is_told_anything() -> None:
    house = House(most=0)
    wires = [await house.client() for _ in range(MOST_REFUSED + 2)]
    assert wires[0].sent.startswith(b"HTTP/1.1 503 ")
    assert [wire.sent for wire in wires[-2:]] == [b"", b""]
    assert all(wire.aborted for wire in wires[-2:])


@timeless
async def test_who_left_makes_room() -> None:
    house = House(most=1)
    first = await house.client(GET[:5])
    first.hangs_up()
    assert house.server.open == 0
    second = await house.client(GET)
    assert second.sent.startswith(b"HTTP/1.1 200 ")


@timeless
async def test_sockets_count_until_they_end() -> None:
    house = House(most=1)
    socket = await house.client(UPGRADE + b"rest")
    assert (house.sockets.served, house.server.open) == ([b"rest"], 1)
    refused = await house.client()
    assert refused.sent.startswith(b"HTTP/1.1 503 ")
    await house.server.stop()
    await settled()
    assert (house.sockets.cancelled, house.server.open) == (1, 0)
    assert not socket.sent


# The end -----------------------------------------------------------------------


@timeless
async def test_draining_waits_for_what_is_under_way() -> None:
    house = House()
    house.plane.go.clear()
    busy, idle = await house.client(GET), await house.client()
    await house.server.refuse_new()
    draining = asyncio.create_task(house.server.drain(30.0))
    await asyncio.sleep(GRACE_S + 0.1)
    assert (busy.is_closing(), idle.closed, draining.done()) == (False, True, False)
    house.plane.go.set()
    await settled()
    assert b"connection: close\r\n" in busy.sent
    assert busy.closed
    assert await draining


@timeless
async def test_an_idle_client_may_just_be_about_to_send() -> None:
    house = House()
    wire = await house.client(GET)
    wire.take()
    await house.server.refuse_new()
    draining = asyncio.create_task(house.server.drain(30.0))
    await asyncio.sleep(GRACE_S / 2)
    wire.feed(GET)
    await settled()
    assert wire.sent.startswith(b"HTTP/1.1 200 ")
    assert await draining


@timeless
async def test_draining_ends_in_time_and_stopping_breaks_the_rest() -> None:
    house = House()
    house.plane.go.clear()
    wire = await house.client(GET)
    began = clock().time()
    assert not await house.server.drain(3.0)
    assert clock().time() - began == pytest.approx(3.0, abs=0.1)
    await house.server.stop()
    await settled()
    assert wire.aborted
    assert house.server.open == 0


# Listening, with a socket that is none ------------------------------------------


class Listening:
    """As much of a listening socket and its server as is needed; connections wait in
    its queue."""

    def __init__(self, *waiting: BaseException | None) -> None:
        self._queue = list(waiting)
        self.closed = False
        self.taken: list[Listening] = []

    def accept(self) -> "tuple[Listening, None]":
        if not self._queue:
            raise BlockingIOError
        error = self._queue.pop(0)
        if error is not None:
            raise error
        self.taken.append(Listening())
        return self.taken[-1], None

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def close(self) -> None:
        self.closed = True


class Deadlines:
    def __init__(self) -> None:
        self.looks: list[float] = []

    def check(self, now: float) -> None:
        self.looks.append(now)


async def listening(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    sock: Listening,
    *deadlines: Deadlines,
) -> list[Wire]:
    """Let the server listen; returns the connections that it accepts as it ends."""
    late: list[Wire] = []

    async def create_server(factory: object, **options: object) -> Listening:
        assert options["sock"] is sock
        return sock

    async def connect_accepted(
        factory: Callable[[], asyncio.Protocol], accepted: Listening
    ) -> None:
        assert accepted in sock.taken
        late.append(Wire(factory()))

    monkeypatch.setattr(clock(), "create_server", create_server)
    monkeypatch.setattr(clock(), "connect_accepted_socket", connect_accepted)
    await house.server.listen(cast(socket.socket, sock), *deadlines)
    return late


@timeless
async def test_deadlines_are_looked_at_while_it_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house, deadlines = House(), Deadlines()
    await listening(house, monkeypatch, Listening(), deadlines)
    began = clock().time()
    slow = await house.client(GET[:5])
    await asyncio.sleep(SWEEP_S * 3.5)
    assert [round(look - began, 3) for look in deadlines.looks] == [0.1, 0.2, 0.3]
    await asyncio.sleep(ClientTimeouts().head_s + SWEEP_S * LOOK_EVERY * 2)
    assert slow.sent.startswith(b"HTTP/1.1 408 ")
    await house.server.stop()
    looked = len(deadlines.looks)
    await asyncio.sleep(1.0)
    assert len(deadlines.looks) == looked


@timeless
async def test_who_waits_in_the_queue_at_the_end_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = House()
    sock = Listening(None, ConnectionAbortedError(), None)
    late = await listening(house, monkeypatch, sock)
    await house.server.refuse_new()
    assert (sock.closed, len(late)) == (True, 2)
    late[0].feed(GET)
    await settled()
    assert late[0].sent.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in late[0].sent
    await house.server.stop()
