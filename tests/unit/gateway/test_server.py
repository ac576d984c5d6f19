"""Who is let in, who serves what, and how it all ends: with connections on wires, the
listening socket aside."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from services.gateway.connection import Connection, Times
from services.gateway.requests import Request
from services.gateway.server import GRACE_S, MOST_REFUSED, Server
from tests.support.clock import clock, settled, timeless
from tests.support.transports import Wire

GET = b"GET /v1/models HTTP/1.1\r\n\r\n"
UPGRADE = (
    b"GET /v1/responses HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
)


class Plane:
    """Answers with its name; waits for a word if it is to."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self.go = asyncio.Event()
        self.go.set()

    async def _serve(self, connection: Connection) -> None:
        try:
            await self.go.wait()
            connection.send_whole(200, [], self._name)
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
    """A server, and its clients."""

    def __init__(self, most: int = 100) -> None:
        self.plane, self.control = Plane(b"plane"), Plane(b"control")
        self.sockets = Sockets()
        self.server = Server(
            self.plane,
            self.control,
            self.sockets,
            largest_body=1000,
            most_connections=most,
            times=Times(),
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
    wire = await House().client(b"GET %b HTTP/1.1\r\n\r\n" % target)
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
