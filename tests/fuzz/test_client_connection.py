"""Bytes from clients, cut anywhere: the same requests and answers result, one answer
per request, in order."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.server.body_memory import Room
from services.gateway.server.connection import ClientTimeouts, Connection
from services.gateway.server.request import Request
from tests.fuzz.bounds import CUTS, DAMAGE, FUZZ, damaged
from tests.fuzz.transports import FakeTransport, feed
from tests.support.clients.wire import chunked, cut

LARGEST = 2_000
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TOKEN = re.compile(rb"\r\nx-number: ([0-9]+)\r\n")


class Site:
    """Answers each request with its number."""

    def __init__(self) -> None:
        self.largest_body = self.small_body = LARGEST
        self.room = Room(LARGEST)
        self.timeouts = ClientTimeouts()
        self.draining = False
        self.served: list[tuple[Any, ...]] = []
        self.upgraded: list[bytes] = []

    def admit(self, connection: Connection) -> bool:
        return True

    def left(self, connection: Connection) -> None: ...

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        return self._serve(request, connection)

    async def _serve(self, request: Request, connection: Connection) -> None:
        problem = request.problem
        self.served.append(
            (request.method, request.path, request.query, tuple(request.headers),
             request.body, problem and problem.code)
        )  # fmt: skip
        await asyncio.sleep(0)
        status = 200 if problem is None else problem.status
        number = b"%d" % len(self.served)
        connection.writer.send_whole(status, [(b"x-number", number)], number)
        connection.over()

    def upgrade(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None:
        self.upgraded.append(request.path)


async def heard(pieces: tuple[bytes, ...]) -> tuple[object, ...]:
    """The requests and answers that result from these bytes."""
    site, loop = Site(), asyncio.get_running_loop()
    connection = Connection(site, loop)
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    await feed(transport, pieces)
    if connection.task is not None:
        connection.connection_lost(None)
        await asyncio.sleep(0)
    written = bytes(transport.written).replace(CONTINUE, b"")
    answers = [int(token) for token in TOKEN.findall(written)]
    # One answer per request, in order; no unsolicited ones.
    assert answers == list(range(1, len(answers) + 1))
    assert len(answers) <= len(site.served)
    assert all(len(served[4]) <= LARGEST for served in site.served)
    assert sum(served[5] is not None for served in site.served) <= 1
    # Whether the server still reads is not compared: a refused connection ends when the
    # client closes it.
    return site.served, written, site.upgraded


HEADERS = st.sampled_from(
    [
        b"host: proxy",
        b"Host: other",
        b"connection: close",
        b"connection: keep-alive",
        b"connection: Upgrade",
        b"upgrade: websocket",
        b"upgrade: h2c",
        b"expect: 100-continue",
        b"transfer-encoding: chunked",
        b"transfer-encoding: gzip, chunked",
        b"Transfer-Encoding : chunked",
        b"content-length: 5",
        b"content-length: 2001",
        b"content-length: +5",
        b"content-length: 5, 5",
        b"content-type: application/json",
        b"x-a: " + b"b" * 300,
        b" folded",
        b": nameless",
        b"x-\0: nul",
        b"x-a: nul\0",
    ]
)
BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    st.lists(st.binary(max_size=30), max_size=4).map(chunked),
    st.sampled_from([b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"x" * 2_100]),
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from([b"GET", b"POST", b"HEAD", b"PRI", b"get"]))
    target = draw(
        st.sampled_from([b"/v1/responses", b"/v1/x?y", b"http://a/v1/b", b"*", b""])
    )
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0", b"2.0", b"1.2"]))
    headers = draw(st.lists(HEADERS, max_size=4))
    body = draw(BODIES)
    if draw(st.booleans()):
        headers.append(b"content-length: %d" % len(body))
    end = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]))
    start = b"%b %b HTTP/%b" % (method, target, version)
    return end.join([start, *headers, b"", b""]) + body


@FUZZ
@given(st.lists(messages(), min_size=1, max_size=3), DAMAGE, CUTS)
def test_requests_cut_anywhere(
    sent: list[bytes], damage: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    data = damaged(b"".join(sent), damage)
    whole = asyncio.run(heard((data,)))
    assert asyncio.run(heard(cut(data, places))) == whole
    assert asyncio.run(heard(cut(data, range(len(data))))) == whole
