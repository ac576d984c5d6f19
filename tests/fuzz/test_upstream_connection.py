"""Bytes from an upstream, cut anywhere: the same answer or the same failure results,
once, and the next request gets none of them."""

import asyncio
from collections.abc import Iterable

from hypothesis import example, given
from hypothesis import strategies as st

from services.gateway.upstream.connection import NO_TIMEOUTS, UpstreamConnection
from services.gateway.upstream.errors import UpstreamError
from services.gateway.upstream.pool import Pool
from services.gateway.upstream.response import Answer
from tests.fuzz.bounds import CUTS, DAMAGE, FUZZ, damaged
from tests.fuzz.transports import FakeTransport, feed, turn
from tests.support.clients.wire import chunked, cut

Told = tuple[object, ...]
NEXT = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext"


class Upstream:
    """A connection in a pool, and its remote end."""

    def __init__(self) -> None:
        self.pool: Pool[UpstreamConnection] = Pool(1, 60, UpstreamConnection.abort)
        self.pool._dialed = 1
        self.connection = UpstreamConnection(self.pool)
        self.transport = FakeTransport(self.connection)
        self.connection.connection_made(self.transport)
        self.pool.opened(self.connection)

    async def asked(
        self, pieces: Iterable[bytes], *, bodiless: bool, ends: bool = False
    ) -> Told:
        """The result of a request that is answered with these bytes."""
        head = self.connection.send(
            b"GET / HTTP/1.1\r\n\r\n", b"", 1e18, NO_TIMEOUTS, bodiless=bodiless
        )
        reading = asyncio.ensure_future(_read(head))
        await feed(self.transport, pieces)
        if ends or not reading.done():
            # The upstream closes: an incomplete answer fails.
            self.transport.ended = self.transport.ended or "by the upstream"
            self.connection.connection_lost(None)
            await turn()
        assert reading.done()
        return reading.result()

    @property
    def reusable(self) -> bool:
        taken = self.pool.take_idle()
        return taken is self.connection and self.transport.ended is None


async def _read(head: "asyncio.Future[Answer]") -> Told:
    answer: Answer | None = None
    body = b""
    try:
        answer = await head
        while piece := await answer.next():
            body += piece
    except UpstreamError as error:
        kind = type(error).__name__
        return kind, answer and answer.status, answer and tuple(answer.headers), body
    return "whole", answer.status, tuple(answer.headers), body


HEADERS = st.sampled_from(
    [
        b"content-type: application/json",
        b"connection: close",
        b"connection: keep-alive",
        b"transfer-encoding: chunked",
        b"transfer-encoding: identity",
        b"content-length: 5",
        b"content-length: 500",
        b"content-length: -1",
        b"upgrade: h2c",
        b" folded",
        b"x: nul\0",
        b"x-a: " + b"b" * 200,
    ]
)
BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    st.lists(st.binary(max_size=30), max_size=4).map(
        lambda pieces: chunked(pieces, b";x=y", b"x-trailer: z\r\n")
    ),
    st.sampled_from([b"hello", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"]),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    early = draw(
        st.sampled_from([b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n",
                         b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"])
    )  # fmt: skip
    status = draw(st.sampled_from([200, 200, 204, 304, 404, 500, 101, 199, 999]))
    headers = draw(st.lists(HEADERS, max_size=3))
    body = draw(BODIES)
    if draw(st.booleans()):
        headers.append(b"content-length: %d" % len(body))
    start = b"HTTP/1.1 %d Odd" % status
    return early + b"\r\n".join([start, *headers, b"", b""]) + body


async def outcome(pieces: Iterable[bytes], *, bodiless: bool) -> Told:
    return await Upstream().asked(pieces, bodiless=bodiless)


@FUZZ
@given(answers(), DAMAGE, CUTS, st.booleans())
def test_answers_cut_anywhere(
    sent: bytes,
    damage: list[tuple[int, int, bytes]],
    places: list[int],
    bodiless: bool,
) -> None:
    data = damaged(sent, damage)
    for pieces in (cut(data, places), cut(data, range(len(data)))):
        assert asyncio.run(outcome(pieces, bodiless=bodiless)) == asyncio.run(
            outcome((data,), bodiless=bodiless)
        )


HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
WHOLE = st.sampled_from(
    [
        HELLO,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ]
)


@FUZZ
@example(HELLO, b"H", [])
@given(WHOLE, st.one_of(st.binary(min_size=1, max_size=40), answers()), CUTS)
def test_bytes_behind_an_answer_are_never_the_next_one(
    first: bytes, extra: bytes, places: list[int]
) -> None:
    async def both() -> None:
        upstream = Upstream()
        told = await upstream.asked(cut(first + extra, places), bodiless=False)
        assert told[0] == "whole"
        assert told[3] in (b"hello", b"")
        assert not upstream.reusable

    asyncio.run(both())


@FUZZ
@given(WHOLE, CUTS)
def test_a_connection_serves_the_next_request(first: bytes, places: list[int]) -> None:
    async def both() -> None:
        upstream = Upstream()
        await upstream.asked(cut(first, places), bodiless=False)
        assert upstream.reusable
        told = await upstream.asked((NEXT,), bodiless=False)
        assert (told[0], told[3]) == ("whole", b"next")

    asyncio.run(both())
