"""A client's connection without a socket: the same requests however bytes are cut, an
answer to each misuse, and each end reported to its handler."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings

from libs.common.headers import Header
from services.gateway.server.connection import (
    LINGER_S,
    MOST_DISCARDED,
    ClientTimeouts,
    Connection,
)
from services.gateway.server.framing import WHOLE_WRITE
from services.gateway.server.head_fields import LARGEST_HEAD, MOST_HEADERS
from services.gateway.server.parser import BODY_STEP, MOST_PIECES
from services.gateway.server.request import Request
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.sites import OpenSite
from tests.support.memory.transports import Wire, cut_at, cut_in_two, cuts, one_by_one

GET = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody"
LARGEST_BODY = 100_000
Answering = Callable[[Request, Connection], Awaitable[None]]


def posting(size: int) -> bytes:
    """The head of a request with this body."""
    return b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size


async def echo(request: Request, connection: Connection) -> None:
    """Answers with the body, or with the request's error."""
    problem = request.problem
    if problem is None:
        connection.writer.send_whole(200, [], request.body)
    else:
        connection.writer.send_whole(
            problem.status, list(problem.headers), problem.body()
        )


class Site(OpenSite):
    """The owner of a connection; records calls."""

    def __init__(self, answer: Answering = echo) -> None:
        super().__init__(
            LARGEST_BODY, ClientTimeouts(head_s=5.0, body_s=6.0, keep_alive_s=20.0)
        )
        self.full = False
        self.served: list[Request] = []
        self.cancelled = 0
        self.gone: list[Connection] = []
        self.upgraded: list[tuple[Request, asyncio.Transport, bytes]] = []
        self._answer = answer

    def admit(self, connection: Connection) -> bool:
        return not self.full

    def left(self, connection: Connection) -> None:
        self.gone.append(connection)

    async def _serve(self, request: Request, connection: Connection) -> None:
        self.served.append(request)
        try:
            await self._answer(request, connection)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            connection.over()

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        return self._serve(request, connection)

    def upgrade(
        self, request: Request, transport: asyncio.Transport, rest: bytes
    ) -> None:
        self.upgraded.append((request, transport, rest))


def connected(site: Site) -> tuple[Connection, Wire]:
    connection = Connection(site, asyncio.get_running_loop())
    return connection, Wire(connection)


def held() -> tuple[Answering, asyncio.Event]:
    """An answer that waits until the test releases it."""
    go = asyncio.Event()

    async def answer(request: Request, connection: Connection) -> None:
        await go.wait()
        await echo(request, connection)

    return answer, go


def statuses(sent: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", sent)]


def status_of(sent: bytes) -> int:
    (status,) = statuses(sent)
    return status


def code_of(sent: bytes) -> str:
    return str(json.loads(sent.partition(b"\r\n\r\n")[2])["error"]["code"])


def seen(request: Request) -> tuple[object, ...]:
    return (
        request.method,
        request.path,
        request.query,
        request.headers,
        request.body,
        request.content_type,
        request.coding,
        request.keep_alive,
        request.http_1_0,
        request.problem and request.problem.code,
    )


# Requests from bytes -----------------------------------------------------------

STREAM = (
    GET + POST + b"POST /a?b=c HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: a/b\r\nContent-Encoding: zstd\r\n\r\n"
    b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: t\r\n\r\n"
    + b"HEAD http://host/z HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
)


async def all_served(pieces: list[bytes]) -> tuple[list[tuple[object, ...]], bytes]:
    """The requests that result from a stream of bytes, and their answers."""
    site = Site()
    _, wire = connected(site)
    for piece in pieces:
        wire.feed(piece)
        await settled()
    return [seen(request) for request in site.served], wire.sent


@timeless
async def test_requests_are_read_as_they_were_sent() -> None:
    requests, sent = await all_served([STREAM])
    assert requests == [
        ("GET", b"/v1/models", b"", [(b"host", b"x")], b"", None, None, True, False,
         None),
        ("POST", b"/v1/responses", b"", [(b"host", b"x"), (b"content-length", b"4")],
         b"body", None, None, True, False, None),
        ("POST", b"/a", b"?b=c",
         [(b"host", b"x"), (b"transfer-encoding", b"chunked"),
          (b"content-type", b"a/b"), (b"content-encoding", b"zstd")],
         b"abcde", b"a/b", b"zstd", True, False, None),
        ("HEAD", b"/z", b"", [(b"host", b"host"), (b"connection", b"close")], b"",
         None, None, False, False, None),
    ]  # fmt: skip
    assert sent == (
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde"
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )


@timeless
async def test_a_cut_at_any_position_changes_nothing() -> None:
    whole = await all_served([STREAM])
    for first, second in cut_in_two(STREAM):
        assert await all_served([first, second]) == whole, first
    assert await all_served(one_by_one(STREAM)) == whole


@settings(max_examples=40, deadline=None)
@given(positions=cuts(len(STREAM)))
def test_cuts_at_any_positions_change_nothing(positions: list[int]) -> None:
    @timeless
    async def run() -> None:
        pieces = cut_at(STREAM, positions)
        assert await all_served(pieces) == await all_served([STREAM])

    run()


@timeless
async def test_a_body_of_many_small_pieces_comes_whole() -> None:
    site = Site()
    connection, wire = connected(site)
    size = 3 * MOST_PIECES
    wire.feed(posting(size))
    body = bytes(number % 251 for number in range(size))
    wire.feed(*one_by_one(body))
    await settled()
    assert [request.body for request in site.served] == [body]
    assert connection.idle


@timeless
async def test_a_body_larger_than_a_head_may_be_comes_whole() -> None:
    site = Site()
    _, wire = connected(site)
    body = b"b" * (LARGEST_HEAD + 1000)
    wire.feed(posting(len(body)) + body)
    await settled()
    assert site.served[0].body == body


@timeless
async def test_an_empty_line_before_a_request_is_passed_over() -> None:
    site = Site()
    _, wire = connected(site)
    wire.feed(b"\r\n\r\n" + GET)
    await settled()
    assert site.served[0].path == b"/v1/models"


# Misuse ------------------------------------------------------------------------

MANY = b"".join(b"x-%d: y\r\n" % number for number in range(MOST_HEADERS + 1))
LONG = b"x: " + b"y" * LARGEST_HEAD + b"\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "status", "code"),
    [
        pytest.param([b"nonsense\r\n\r\n"], 400, "bad_request", id="no HTTP"),
        pytest.param(
            [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"], 400, "bad_request", id="TLS"
        ),
        pytest.param(
            [b"GET / HTTP/1.1\r\nno colon\r\n\r\n"], 400, "bad_request", id="header"
        ),
        pytest.param(
            [b"GET / HTTP/2.0\r\n\r\n"], 505, "bad_request", id="HTTP/2 in text"
        ),
        pytest.param(
            [posting(4).replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\n\r\n")],
            400,
            "bad_request",
            id="two lengths",
        ),
        pytest.param(
            [CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-length: 4\r\n\r\n")],
            400,
            "bad_request",
            id="length and chunks",
        ),
        pytest.param(
            [b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n"],
            501,
            "bad_request",
            id="unknown transfer coding",
        ),
        pytest.param(
            [b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"],
            501,
            "bad_request",
            id="chunks of HTTP/1.0",
        ),
        pytest.param(
            [CHUNKED + b"zz\r\n"], 400, "bad_request", id="no size of a chunk"
        ),
        pytest.param(
            [posting(LARGEST_BODY + 1)],
            413,
            "body_too_large",
            id="announced too large",
        ),
        pytest.param(
            [CHUNKED, b"%x\r\n" % (LARGEST_BODY + 1), b"b" * (LARGEST_BODY + 1)],
            413,
            "body_too_large",
            id="chunks too large",
        ),
        pytest.param(
            [b"GET / HTTP/1.1\r\nhost: x\r\n" + LONG],
            431,
            "headers_too_large",
            id="one long read",
        ),
        pytest.param(
            [b"GET / HTTP/1.1\r\nhost: x\r\n", LONG[:40_000], LONG[40_000:]],
            431,
            "headers_too_large",
            id="long in several reads",
        ),
        pytest.param(
            [b"GET / HTTP/1.1\r\nhost: x\r\n", b"x: " + b"y" * 40_000, b"y" * 40_000],
            431,
            "headers_too_large",
            id="a head that never ends",
        ),
        pytest.param(
            [b"GET /" + b"y" * 60_000, b"y" * 60_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"],
            431,
            "headers_too_large",
            id="a long target",
        ),
        pytest.param(
            [b"GET / HTTP/1.1\r\nhost: x\r\n" + MANY + b"\r\n"],
            431,
            "headers_too_large",
            id="many headers",
        ),
        pytest.param(
            [CHUNKED, b"1;" + b"e" * 40_000, b"e" * 40_000],
            431,
            "headers_too_large",
            id="an endless extension",
        ),
        pytest.param(
            [CHUNKED, b"0\r\nx: " + b"y" * 40_000, b"y" * 40_000],
            431,
            "headers_too_large",
            id="endless trailers",
        ),
    ],
)  # fmt: skip
@timeless
async def test_each_misuse_has_an_answer_and_ends_the_connection(
    pieces: list[bytes], status: int, code: str
) -> None:
    site = Site()
    _, wire = connected(site)
    wire.feed(*pieces)
    await settled()
    sent = wire.sent
    assert (status_of(sent), code_of(sent)) == (status, code)
    assert b"connection: close\r\n" in sent
    assert wire.eof
    assert not wire.is_closing()  # its client may still be sending
    wire.feed(GET, b"\x00" * 100)
    await settled()
    assert len(site.served) == 1
    assert wire.sent == sent


@timeless
async def test_who_is_refused_and_sends_on_is_read_for_a_while() -> None:
    _, wire = connected(Site())
    wire.feed(b"nonsense\r\n\r\n")
    await settled()
    piece = b"x" * (MOST_DISCARDED // 4)
    wire.feed(piece, piece, piece, piece)
    assert not wire.aborted
    wire.feed(b"x")
    assert wire.aborted


@timeless
async def test_who_is_refused_has_some_seconds_to_leave() -> None:
    connection, wire = connected(Site())
    wire.feed(b"nonsense\r\n\r\n")
    await settled()
    connection.check(clock().time() + LINGER_S)
    assert not wire.aborted
    connection.check(clock().time() + LINGER_S + 0.1)
    assert wire.aborted


@timeless
async def test_a_transport_that_cannot_half_close_is_left_open() -> None:
    connection, wire = connected(Site())
    wire.half_closes = False
    wire.feed(b"nonsense\r\n\r\n")
    await settled()
    assert (wire.eof, wire.is_closing()) == (False, False)
    connection.check(clock().time() + LINGER_S + 0.1)
    assert wire.aborted


@timeless
async def test_what_is_wrong_behind_a_request_is_said_after_its_answer() -> None:
    answer, go = held()
    site = Site(answer)
    _, wire = connected(site)
    wire.feed(POST + b"nonsense\r\n\r\n")
    await settled()
    assert wire.sent == b""
    go.set()
    await settled()
    assert statuses(wire.sent) == [200, 400]


@timeless
async def test_a_site_that_is_full_says_so() -> None:
    site = Site()
    site.full = True
    _, wire = connected(site)
    await settled()
    assert (status_of(wire.sent), code_of(wire.sent)) == (503, "no_capacity")
    assert b"retry-after: 1\r\n" in wire.sent
    wire.feed(GET)
    await settled()
    assert [request.problem is not None for request in site.served] == [True]


# Expect ------------------------------------------------------------------------

EXPECTING = (
    b"POST / HTTP/1.1\r\nhost: x\r\nExpect: 100-Continue\r\ncontent-length: 1\r\n\r\n"
)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        pytest.param(EXPECTING, b"HTTP/1.1 100 Continue\r\n\r\n", id="asked for"),
        pytest.param(
            EXPECTING.replace(b"100-Continue", b"200-ok"), b"", id="something else"
        ),
        pytest.param(
            EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0"), b"", id="of HTTP/1.0"
        ),
        pytest.param(EXPECTING.replace(b"Expect", b"x"), b"", id="not asked for"),
    ],
)
@timeless
async def test_who_waits_before_its_body_is_told_to_go_on(
    head: bytes, told: bytes
) -> None:
    site = Site()
    _, wire = connected(site)
    wire.feed(head)
    assert wire.take() == told
    wire.feed(b"b")
    await settled()
    assert site.served[0].body == b"b"


@timeless
async def test_nobody_is_told_to_go_on_in_the_midst_of_an_answer() -> None:
    answer, go = held()
    _, wire = connected(Site(answer))
    wire.feed(POST)
    await settled()
    wire.feed(EXPECTING)
    assert wire.sent == b""
    wire.feed(b"b")
    go.set()
    await settled()
    assert statuses(wire.sent) == [200, 200]


# Persistence -------------------------------------------------------------------

TO_H2C = b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "draining", "said", "stays"),
    [
        pytest.param(GET, False, None, True, id="1.1"),
        pytest.param(
            GET.replace(b"host: x", b"connection: close"), False, b"close", False,
            id="1.1, close",
        ),
        pytest.param(GET, True, b"close", False, id="1.1 while we drain"),
        pytest.param(
            GET.replace(b"HTTP/1.1", b"HTTP/1.0"), False, b"close", False, id="1.0"
        ),
        pytest.param(
            b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", False, b"keep-alive",
            True, id="1.0, keep-alive",
        ),
        pytest.param(
            GET.replace(b"\r\n\r\n", TO_H2C), False, None, True,
            id="an upgrade that we do not know",
        ),
    ],
)  # fmt: skip
@timeless
async def test_a_client_is_told_whether_its_connection_stays(
    request_: bytes, draining: bool, said: bytes | None, stays: bool
) -> None:
    site = Site()
    site.draining = draining
    _, wire = connected(site)
    wire.feed(request_)
    await settled()
    head, _, _ = wire.sent.partition(b"\r\n\r\n")
    found = [
        line.partition(b": ")[2]
        for line in head.split(b"\r\n")
        if line.startswith(b"connection")
    ]
    assert found == ([said] if said else [])
    assert (wire.closed or wire.eof) is not stays


@timeless
async def test_what_follows_an_unknown_upgrade_is_the_next_request() -> None:
    answer, go = held()
    site = Site(answer)
    _, wire = connected(site)
    wire.feed(POST.replace(b"\r\n\r\n", TO_H2C) + GET)
    go.set()
    await settled()
    asked = [(request.path, request.body) for request in site.served]
    assert asked == [(b"/v1/responses", b"body"), (b"/v1/models", b"")]
    assert b"upgrade" not in dict(site.served[0].headers)
    assert statuses(wire.sent) == [200, 200]


@timeless
async def test_a_client_that_speaks_http_2_unasked_is_refused() -> None:
    site = Site()
    _, wire = connected(site)
    head = GET.replace(b"\r\n\r\n", TO_H2C)
    wire.feed(head + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    await settled()
    wire.feed(GET)
    await settled()
    assert [request.path for request in site.served] == [b"/v1/models", b"/"]
    assert statuses(wire.sent) == [200, 400]
    assert wire.eof


# Answers -----------------------------------------------------------------------


def relaying(
    status: int, headers: list[Header], pieces: list[bytes], *, whole: bool = True
) -> Answering:
    async def answer(request: Request, connection: Connection) -> None:
        head = connection.writer.begin(status, headers, b"x-proxy-reason: r\r\n")
        for number, piece in enumerate(pieces, 1):
            connection.writer.send(head, piece, last=whole and number == len(pieces))
            head = b""

    return answer


@pytest.mark.parametrize(
    ("request_", "status", "headers", "pieces", "head", "body", "stays"),
    [
        pytest.param(
            GET, 200, [], [b"ab", b"", b"cde", b""],
            b"transfer-encoding: chunked\r\n", b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
            True, id="chunked",
        ),
        pytest.param(
            GET, 200, [], [b"ab"], b"transfer-encoding: chunked\r\n",
            b"2\r\nab\r\n0\r\n\r\n", True, id="chunked at once",
        ),
        pytest.param(
            GET, 200, [(b"content-length", b"4")], [b"ab", b"cd"], b"", b"abcd", True,
            id="of a known length",
        ),
        pytest.param(
            GET.replace(b"HTTP/1.1", b"HTTP/1.0"), 200, [], [b"ab", b"cd"],
            b"connection: close\r\n", b"abcd", False, id="to HTTP/1.0: to the end",
        ),
        pytest.param(
            b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", 200,
            [(b"content-length", b"2")], [b"ab"], b"connection: keep-alive\r\n", b"ab",
            True, id="to HTTP/1.0: of a known length",
        ),
        pytest.param(
            GET.replace(b"GET", b"HEAD"), 200, [(b"content-length", b"9")], [b"ab"],
            b"", b"", True, id="to HEAD",
        ),
        pytest.param(GET, 204, [], [b"ab"], b"", b"", True, id="204"),
        pytest.param(GET, 304, [], [b""], b"", b"", True, id="304"),
    ],
)  # fmt: skip
@timeless
async def test_a_relayed_answer_is_framed_for_its_client(  # noqa: PLR0913 - a table
    request_: bytes,
    status: int,
    headers: list[Header],
    pieces: list[bytes],
    head: bytes,
    body: bytes,
    stays: bool,
) -> None:
    connection, wire = connected(Site(relaying(status, headers, pieces)))
    wire.feed(request_)
    await settled()
    sent_head, _, sent_body = wire.sent.partition(b"\r\n\r\n")
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    lines += b"x-proxy-reason: r\r\n" + head
    assert sent_head.partition(b"\r\n")[2] + b"\r\n" == lines
    assert sent_body == body
    assert connection.gone is not stays
    wire.feed(GET)
    await settled()
    assert len(statuses(wire.sent)) == (2 if stays else 1)


@pytest.mark.parametrize("size", [WHOLE_WRITE - 100, WHOLE_WRITE + 1])
@timeless
async def test_small_pieces_travel_with_the_head_large_ones_are_not_copied(
    size: int,
) -> None:
    body = b"b" * size
    _, wire = connected(Site(relaying(200, [(b"content-length", b"1")], [body])))
    wire.feed(GET)
    await settled()
    assert len(wire.writes) == (1 if size < WHOLE_WRITE else 2)
    assert wire.sent.endswith(b"\r\n\r\n" + body)


@timeless
async def test_a_large_piece_without_a_head_is_one_write() -> None:
    pieces = [b"", b"b" * (WHOLE_WRITE + 1)]
    _, wire = connected(Site(relaying(200, [(b"content-length", b"1")], pieces)))
    wire.feed(GET)
    await settled()
    assert [len(write) for write in wire.writes[1:]] == [WHOLE_WRITE + 1]


@timeless
async def test_a_part_of_an_answer_breaks_the_connection() -> None:
    _, wire = connected(Site(relaying(200, [], [b"ab"], whole=False)))
    wire.feed(GET)
    await settled()
    assert wire.aborted
    assert b"0\r\n\r\n" not in wire.sent


@timeless
async def test_an_answer_without_a_byte_breaks_the_connection() -> None:
    async def nothing(_: Request, connection: Connection) -> None:
        assert not connection.began

    _, wire = connected(Site(nothing))
    wire.feed(GET)
    await settled()
    assert (wire.aborted, wire.sent) == (True, b"")


@pytest.mark.parametrize("status", [204, 304])
@timeless
async def test_our_own_answers_without_a_body_have_no_length(status: int) -> None:
    async def empty(_: Request, connection: Connection) -> None:
        connection.writer.send_whole(status, [(b"content-length", b"7")], b"ignored")

    _, wire = connected(Site(empty))
    wire.feed(GET)
    await settled()
    assert wire.sent.endswith(b"\r\n\r\n")
    assert b"content-length" not in wire.sent


# Pipelining --------------------------------------------------------------------


@timeless
async def test_pipelined_requests_are_served_in_order_and_hold_up_the_reading() -> None:
    answer, go = held()
    site = Site(answer)
    connection, wire = connected(site)
    wire.feed(*(POST.replace(b"body", b"no %d" % number) for number in range(3)))
    await settled()
    assert (len(site.served), wire.reading) == (1, False)
    go.set()
    await settled()
    assert [request.body for request in site.served] == [b"no 0", b"no 1", b"no 2"]
    assert wire.reading
    assert wire.sent.index(b"no 0") < wire.sent.index(b"no 1")
    assert connection.idle


@timeless
async def test_pipelined_requests_behind_a_last_one_are_not_served() -> None:
    site = Site()
    _, wire = connected(site)
    wire.feed(GET.replace(b"host: x", b"connection: close") + GET)
    await settled()
    assert len(site.served) == 1
    assert wire.closed or wire.eof


# Leaving -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["hangs up", "half-closes", "is reset"])
@timeless
async def test_a_client_that_leaves_ends_its_request_and_the_queue(how: str) -> None:
    answer, _ = held()
    site = Site(answer)
    connection, wire = connected(site)
    wire.feed(GET, GET)
    await settled()
    if how == "half-closes":
        assert not connection.eof_received()
    wire.hangs_up(ConnectionResetError() if how == "is reset" else None)
    await settled()
    assert (site.cancelled, len(site.served)) == (1, 1)
    assert site.gone == [connection]
    assert connection.gone
    assert connection.task is None
    assert wire.sent == b""


@timeless
async def test_a_client_that_leaves_between_requests_ends_the_task() -> None:
    site = Site()
    connection, wire = connected(site)
    wire.feed(GET)
    await settled()
    task = connection.task
    assert task is not None
    wire.hangs_up()
    await settled()
    assert (task.done(), task.cancelled(), site.cancelled) == (True, False, 0)


@timeless
async def test_a_client_that_leaves_before_it_asks_is_no_trouble() -> None:
    site = Site()
    connection, wire = connected(site)
    wire.feed(GET[:10])
    wire.hangs_up()
    await settled()
    assert (site.gone, site.served) == ([connection], [])


@timeless
async def test_a_task_that_is_canceled_by_others_is_cancelled() -> None:
    answer, _ = held()
    connection, wire = connected(Site(answer))
    wire.feed(GET)
    await settled()
    task = connection.task
    assert task is not None
    task.cancel()
    await settled()
    assert task.cancelled()
    assert wire.aborted  # there was no answer


@timeless
async def test_what_is_sent_after_a_client_left_goes_nowhere() -> None:
    connection, wire = connected(Site(relaying(200, [], [b"late"])))
    wire.feed(GET)
    wire.hangs_up()
    await settled()
    assert wire.sent == b""
    connection.abort()
    connection.hang_up()


# A slow client -----------------------------------------------------------------


@timeless
async def test_an_answer_waits_for_a_client_that_does_not_read() -> None:
    reached: list[str] = []

    async def slow(request: Request, connection: Connection) -> None:
        connection.on_drain = lambda: reached.append("told")
        await asyncio.gather(connection.drained(), connection.drained())
        reached.append("went on")
        await echo(request, connection)

    connection, wire = connected(Site(slow))
    connection.pause_writing()
    assert connection.paused
    wire.feed(GET)
    await settled()
    assert reached == []
    connection.resume_writing()
    await settled()
    assert reached == ["told", "went on"]
    assert status_of(wire.sent) == 200


@timeless
async def test_a_slow_client_that_leaves_is_not_waited_for() -> None:
    answer_ended = asyncio.Event()

    async def slow(_: Request, connection: Connection) -> None:
        try:
            await connection.drained()
        finally:
            answer_ended.set()

    connection, wire = connected(Site(slow))
    connection.pause_writing()
    wire.feed(GET)
    await settled()
    wire.hangs_up()
    await settled()
    assert answer_ended.is_set()


# Deadlines ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "seconds", "status"),
    [
        pytest.param([GET[:9]], 5.0, 408, id="a head"),
        pytest.param([POST[:-2]], 6.0, 408, id="a body"),
    ],
)
@timeless
async def test_what_does_not_arrive_in_time_is_refused(
    pieces: list[bytes], seconds: float, status: int
) -> None:
    connection, wire = connected(Site())
    wire.feed(*pieces)
    now = clock().time()
    connection.check(now)
    connection.check(now + seconds)
    await settled()
    assert wire.sent == b""
    connection.check(now + seconds + 0.1)
    await settled()
    assert (status_of(wire.sent), code_of(wire.sent)) == (status, "request_timeout")
    assert wire.eof


@timeless
async def test_a_body_that_goes_on_has_time_and_one_that_dribbles_has_not() -> None:
    connection, wire = connected(Site())
    now = clock().time()
    wire.feed(posting(50_000))
    for _ in range(10):
        connection.check(now)
        now += 5.0
        wire.feed(b"b" * BODY_STEP)
    connection.check(now)
    for _ in range(2):
        now += 3.5
        wire.feed(b"b" * (BODY_STEP // 4))
        await settled()
        assert wire.sent == b""
        connection.check(now)
    await settled()
    assert code_of(wire.sent) == "request_timeout"


@timeless
async def test_a_later_body_has_a_time_of_its_own() -> None:
    connection, wire = connected(Site())
    wire.feed(posting(50_000) + b"b" * 40_000)
    connection.check(clock().time())
    wire.feed(b"b" * 10_000)
    await settled()
    assert status_of(wire.take()) == 200
    wire.feed(posting(20_000) + b"b")
    now = clock().time()
    connection.check(now + 5.0)
    connection.check(now + 10.0)
    await settled()
    assert wire.sent == b""


@timeless
async def test_a_connection_without_a_request_is_closed_after_a_while() -> None:
    connection, wire = connected(Site())
    wire.feed(GET)
    await settled()
    now = clock().time()
    connection.check(now + 20.0)
    assert not wire.closed
    connection.check(now + 20.1)
    assert (wire.closed, connection.idle) == (True, False)


@timeless
async def test_a_close_that_the_client_does_not_take_becomes_a_break() -> None:
    connection, wire = connected(Site())
    connection.hang_up()
    connection.hang_up()
    now = clock().time()
    connection.check(now + LINGER_S + 0.1)
    assert wire.aborted


@timeless
async def test_while_a_request_is_served_its_own_deadlines_count() -> None:
    answer, go = held()
    connection, wire = connected(Site(answer))
    wire.feed(GET)
    await settled()
    connection.check(clock().time() + 10_000)
    assert not wire.is_closing()
    go.set()
    await settled()
    assert status_of(wire.sent) == 200


@pytest.mark.parametrize(
    ("fed", "idle"),
    [(b"", True), (GET, True), (GET[:5], False), (POST[:-1], False), (b"?\r\n", False)],
    ids=["new", "served", "in a head", "in a body", "refused"],
)
@timeless
async def test_idle_is_a_connection_with_nothing_under_way(
    fed: bytes, idle: bool
) -> None:
    connection, wire = connected(Site())
    wire.feed(fed)
    await settled()
    assert connection.idle is idle


# Upgrades ----------------------------------------------------------------------

UPGRADE = (
    b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n"
    b"upgrade: WebSocket\r\n\r\n"
)


@timeless
async def test_an_upgrade_hands_the_transport_over_with_what_came_behind() -> None:
    site = Site()
    connection, wire = connected(site)
    wire.feed(UPGRADE + b"\x81\x00")
    ((request, transport, rest),) = site.upgraded
    assert (request.path, transport, rest) == (b"/v1/responses", wire, b"\x81\x00")
    assert connection.gone
    assert not wire.reading  # until the socket takes over
    assert site.gone == [connection]
    assert site.served == []


@timeless
async def test_an_upgrade_is_found_wherever_it_is_cut() -> None:
    for first, second in cut_in_two(UPGRADE):
        site = Site()
        _, wire = connected(site)
        wire.feed(first, second)
        assert [rest for _, _, rest in site.upgraded] == [b""], first


@timeless
async def test_an_upgrade_behind_a_request_under_way_is_refused() -> None:
    answer, go = held()
    site = Site(answer)
    _, wire = connected(site)
    wire.feed(POST + UPGRADE)
    go.set()
    await settled()
    assert statuses(wire.sent) == [200, 400]
    assert site.upgraded == []


@timeless
async def test_many_frames_before_the_upgrades_answer_break_the_connection() -> None:
    site = Site()
    _, wire = connected(site)
    wire.feed(UPGRADE + b"\x81\x00" * LARGEST_HEAD)
    assert len(site.upgraded) == 1
    assert wire.aborted
