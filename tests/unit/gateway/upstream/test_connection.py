"""An upstream's connection without a socket: the same answer however bytes are cut, no
answer reaches another request, and each end is reported."""

import asyncio
import math

import pytest
from hypothesis import given, settings

from libs.common.headers import Header
from services.gateway.upstream.connection import (
    LARGEST_HEAD,
    NO_TIMEOUTS,
    SMALL_BODY,
    Timeouts,
    UpstreamConnection,
)
from services.gateway.upstream.errors import (
    Broken,
    Interrupted,
    Slow,
    TimedOut,
    UpstreamError,
)
from services.gateway.upstream.pool import Pool
from services.gateway.upstream.response import REST_S, Answer
from tests.support.memory.clock import clock, settled, timeless
from tests.support.memory.transports import Wire, cut_at, cut_in_two, cuts, one_by_one

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: t\r\n\r\n"
)
TO_THE_END = b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nabc"
LIMIT = 1
IDLE_S = 55.0


class Line:
    """A pool of one connection, and its wire."""

    def __init__(self) -> None:
        self.pool: Pool[UpstreamConnection] = Pool(
            LIMIT, IDLE_S, UpstreamConnection.abort
        )
        self.connection = UpstreamConnection(self.pool)
        self.wire = Wire(self.connection)

    @classmethod
    async def in_use(cls) -> "Line":
        line = cls()
        assert await line.pool.take(math.inf) is None
        line.pool.opened(line.connection)
        return line

    def ask(
        self,
        body: bytes = b"",
        deadline: float = math.inf,
        timeouts: Timeouts = NO_TIMEOUTS,
        *,
        bodiless: bool = False,
    ) -> "asyncio.Future[Answer]":
        return self.connection.send(HEAD, body, deadline, timeouts, bodiless=bodiless)

    @property
    def open(self) -> int:
        return self.pool.size


async def body_of(answer: Answer) -> bytes:
    body = b""
    while piece := await answer.next():
        body += piece
    return body


async def answered(pieces: list[bytes], *, ends: bool = False) -> tuple[object, ...]:
    """The result of an answer's bytes, and whether its connection may be reused."""
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(*pieces)
    if ends:
        line.wire.hangs_up()
    answer = await asked
    body = await body_of(answer)
    return answer.status, answer.headers, body, line.pool.take_idle() is not None


@pytest.mark.parametrize(
    ("sent", "ends", "headers", "body", "reused"),
    [
        pytest.param(
            OK, False, [(b"content-length", b"2")], b"ok", True, id="of a length"
        ),
        pytest.param(
            CHUNKS, False, [(b"transfer-encoding", b"chunked")], b"abcde", True,
            id="chunked",
        ),
        pytest.param(
            TO_THE_END, True, [(b"x", b"y")], b"abc", False, id="to the end"
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\nx: no\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nlink: no\r\n\r\n" + OK,
            False, [(b"content-length", b"2")], b"ok", True, id="behind hints",
        ),
        pytest.param(
            OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), False,
            [(b"content-length", b"2"), (b"connection", b"close")], b"ok", False,
            id="the last one",
        ),
        pytest.param(
            OK.replace(b"HTTP/1.1", b"HTTP/1.0"), False, [(b"content-length", b"2")],
            b"ok", False, id="of HTTP/1.0",
        ),
        pytest.param(
            b"HTTP/1.1 204 No Content\r\n\r\n", False, [], b"", True, id="without"
        ),
    ],
)  # fmt: skip
@timeless
async def test_an_answer_is_the_same_wherever_it_is_cut(
    sent: bytes, ends: bool, headers: list[Header], body: bytes, reused: bool
) -> None:
    whole = await answered([sent], ends=ends)
    assert whole[1:] == (headers, body, reused)
    for first, second in cut_in_two(sent):
        assert await answered([first, second], ends=ends) == whole, first
    assert await answered(one_by_one(sent), ends=ends) == whole


@settings(max_examples=40, deadline=None)
@given(positions=cuts(len(CHUNKS)))
def test_cuts_at_any_positions_change_nothing(positions: list[int]) -> None:
    @timeless
    async def run() -> None:
        assert await answered(cut_at(CHUNKS, positions)) == await answered([CHUNKS])

    run()


@timeless
async def test_one_connection_serves_one_request_after_the_other() -> None:
    line = await Line.in_use()
    for number in range(3):
        answer_head = line.ask()
        line.wire.feed(OK.replace(b"ok", b"a%d" % number))
        assert await body_of(await answer_head) == b"a%d" % number
        assert line.pool.take_idle() is line.connection
    assert line.connection.requests == 3


@pytest.mark.parametrize(("size", "writes"), [(SMALL_BODY, 1), (SMALL_BODY + 1, 2)])
@timeless
async def test_a_small_body_travels_with_its_head(size: int, writes: int) -> None:
    line = await Line.in_use()
    line.ask(b"b" * size)
    assert len(line.wire.writes) == writes
    assert line.wire.sent == HEAD + b"b" * size


@timeless
async def test_an_answer_to_head_has_no_body_whatever_its_length() -> None:
    line = await Line.in_use()
    asked = line.ask(bodiless=True)
    line.wire.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
    answer = await asked
    assert await answer.next() == b""
    assert answer.ended
    # Its parser waits for nine bytes that never come.
    assert line.pool.take_idle() is None
    assert line.open == 0


@timeless
async def test_an_answer_that_came_before_its_request_was_sent_is_the_last() -> None:
    line = await Line.in_use()
    line.wire.unsent = 100
    asked = line.ask(b"b" * 200)
    line.wire.feed(OK)
    assert await body_of(await asked) == b"ok"
    assert (line.open, line.wire.aborted) == (0, True)


# Failures ----------------------------------------------------------------------


async def error_of(asked: "asyncio.Future[Answer]") -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await asked
    return caught.value


@pytest.mark.parametrize(
    ("fed", "says"),
    [
        pytest.param(b"nonsense\r\n", "no HTTP", id="no HTTP"),
        pytest.param(
            b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "no HTTP",
            id="an upgrade nobody asked for",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nx: " + b"y" * LARGEST_HEAD, "never end", id="endless"
        ),
    ],
)
@timeless
async def test_bytes_that_are_no_answer_break_the_request(
    fed: bytes, says: str
) -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(fed)
    error = await error_of(asked)
    assert isinstance(error, Broken)
    assert says in str(error)
    assert not error.reused
    assert (line.open, line.wire.aborted) == (0, True)


@timeless
async def test_a_large_head_in_two_reads_is_no_endless_one() -> None:
    line = await Line.in_use()
    asked = line.ask()
    half = LARGEST_HEAD // 2 - 100
    line.wire.feed(b"HTTP/1.1 200 OK\r\nx: " + b"y" * half)
    line.wire.feed(b"y" * half + b"\r\ntransfer-encoding: chunked\r\n\r\n")
    line.wire.feed(b"2;x=" + b"y" * (half // 2))
    line.wire.feed(b"\r\nok\r\n0\r\n\r\n")
    assert await body_of(await asked) == b"ok"


@timeless
async def test_hints_without_end_break_the_request() -> None:
    line = await Line.in_use()
    asked = line.ask()
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: " + b"y" * 1000 + b"\r\n\r\n"
    for _ in range(LARGEST_HEAD // 1000 + 1):
        line.wire.feed(hint)
    assert "never end" in str(await error_of(asked))


@timeless
async def test_trailers_without_end_interrupt_the_answer() -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(CHUNKS[: CHUNKS.index(b"t\r\n\r\n")])
    answer = await asked
    assert await answer.next() == b"abcde"
    for _ in range(3):
        line.wire.feed(b"t" * 30_000)
    with pytest.raises(Interrupted, match="never end"):
        await answer.next()


@timeless
async def test_what_came_before_the_nonsense_is_still_handed_over() -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\nzz\r\n"
    )
    answer = await asked
    assert await answer.next() == b"ab"
    with pytest.raises(Interrupted, match="no HTTP"):
        await answer.next()


@timeless
async def test_a_second_answer_is_nobodys_and_ends_the_connection() -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(OK + OK.replace(b"ok", b"no"))
    assert await body_of(await asked) == b"ok"
    assert (line.open, line.wire.aborted) == (0, True)


@timeless
async def test_bytes_on_an_idle_connection_end_it() -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(OK)
    assert await body_of(await asked) == b"ok"
    line.wire.feed(OK)
    assert (line.pool.take_idle(), line.open) == (None, 0)
    assert line.wire.aborted


@pytest.mark.parametrize(
    ("fed", "kind", "reused"),
    [
        pytest.param(b"", Broken, True, id="before a byte"),
        pytest.param(b"HTTP/1.1 2", Broken, False, id="within the head"),
    ],
)
@timeless
async def test_a_kept_connection_may_just_have_been_closed_for_idleness(
    fed: bytes, kind: type[Broken], reused: bool
) -> None:
    line = await Line.in_use()
    first = line.ask()
    line.wire.feed(OK)
    await body_of(await first)
    assert line.pool.take_idle() is line.connection
    second = line.ask()
    line.wire.feed(fed)
    line.wire.hangs_up()
    error = await error_of(second)
    assert isinstance(error, kind)
    assert error.reused is reused


@timeless
async def test_a_new_connection_that_closes_is_the_upstreams_fault() -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.hangs_up()
    error = await error_of(asked)
    assert isinstance(error, Broken)
    assert not error.reused
    late = await error_of(line.ask())
    assert isinstance(late, Broken)
    assert line.open == 0


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        pytest.param(OK[:-1], None, id="of a length"),
        pytest.param(CHUNKS[:-1], None, id="chunked"),
        pytest.param(TO_THE_END, ConnectionResetError(), id="reset"),
    ],
)
@timeless
async def test_a_part_of_an_answer_never_passes_for_the_whole(
    sent: bytes, error: Exception | None
) -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(sent)
    line.wire.hangs_up(error)
    with pytest.raises(Interrupted):
        await body_of(await asked)
    assert line.open == 0


# Deadlines ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fed", "deadline", "kind"),
    [
        pytest.param(b"", 10.0, TimedOut, id="no head by the deadline"),
        pytest.param(OK[:-1], 10.0, TimedOut, id="no body by the deadline"),
        pytest.param(b"", math.inf, Slow, id="no head for long"),
        pytest.param(OK[:-1], math.inf, Slow, id="no more body for long"),
    ],
)
@timeless
async def test_what_takes_too_long_is_ended(
    fed: bytes, deadline: float, kind: type[UpstreamError]
) -> None:
    line = await Line.in_use()
    now = clock().time()
    timeouts = NO_TIMEOUTS if deadline < math.inf else Timeouts(10.0, 10.0)
    asked = line.ask(b"", now + deadline, timeouts)
    line.wire.feed(fed)
    line.connection.check(now + 9.9)
    assert not line.wire.aborted
    line.connection.check(now + 10.1)
    with pytest.raises(kind):
        await body_of(await asked)
    assert line.open == 0


@timeless
async def test_who_goes_on_is_not_slow() -> None:
    line = await Line.in_use()
    asked = line.ask(b"", math.inf, Timeouts(10.0, 10.0))
    for piece in one_by_one(CHUNKS[:60]):
        clock().advance(9.0)
        line.wire.feed(piece)
        line.connection.check(clock().time() + 9.0)
    assert (await asked).status == 200
    assert not line.wire.aborted


@timeless
async def test_while_the_reader_rests_the_upstream_is_not_to_blame() -> None:
    line = await Line.in_use()
    asked = line.ask(b"", clock().time() + 5.0, Timeouts(1.0, 1.0))
    line.wire.feed(OK[:-1])
    answer = await asked
    line.connection.pause_reading()
    line.connection.pause_reading()
    line.connection.check(clock().time() + 100)
    assert (line.wire.reading, line.wire.aborted) == (False, False)
    clock().advance(2.0)
    line.connection.resume_reading()
    assert line.wire.reading
    line.connection.check(clock().time() + 0.5)  # its silence begins now
    line.wire.feed(b"k")
    assert await body_of(answer) == b"ok"


@timeless
async def test_an_answer_that_ends_while_its_reader_rests_is_read_on() -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(OK[:-1])
    answer = await asked
    line.connection.pause_reading()
    line.wire.feed(b"k")
    assert line.wire.reading
    assert line.pool.take_idle() is line.connection
    assert await body_of(answer) == b"ok"


@timeless
async def test_an_end_that_nobody_waits_for_has_a_moment() -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(OK[:-1])
    (await asked).finish_alone()
    now = clock().time()
    line.connection.check(now + REST_S - 0.1)
    assert not line.wire.aborted
    line.connection.check(now + REST_S)
    assert (line.wire.aborted, line.open) == (True, 0)


# Giving up ---------------------------------------------------------------------


@timeless
async def test_giving_up_before_the_head_closes_the_connection() -> None:
    line = await Line.in_use()
    asked = line.ask()
    asked.cancel()
    line.connection.withdraw(asked)
    assert (line.wire.aborted, line.open) == (True, 0)
    await settled()


@timeless
async def test_giving_up_as_the_head_comes_closes_the_connection() -> None:
    line = await Line.in_use()
    asked = line.ask()
    asked.cancel()
    line.wire.feed(OK)  # its cancellation is on the way
    assert (line.wire.aborted, line.open) == (True, 0)
    line.connection.withdraw(asked)


@timeless
async def test_giving_up_after_the_head_closes_the_connection() -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.feed(OK[:-1])
    line.connection.withdraw(asked)
    assert (line.wire.aborted, line.open) == (True, 0)


@timeless
async def test_giving_up_what_is_over_leaves_the_next_request_alone() -> None:
    line = await Line.in_use()
    first = line.ask()
    line.wire.feed(OK)
    assert line.pool.take_idle() is line.connection
    second = line.ask()
    line.connection.withdraw(first)
    assert not line.wire.aborted
    line.wire.feed(OK)
    assert await body_of(await second) == b"ok"


@timeless
async def test_giving_up_what_failed_does_nothing() -> None:
    line = await Line.in_use()
    asked = line.ask()
    line.wire.hangs_up()
    line.connection.withdraw(asked)
    assert isinstance(await error_of(asked), Broken)
