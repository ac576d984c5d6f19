"""Requests from bytes alone: phases, limits, refusals and upgrades, without a
transport."""

import pytest

from services.gateway import errors
from services.gateway.content.headers import lines_of
from services.gateway.server.body_memory import Room
from services.gateway.server.head_fields import LARGEST_HEAD
from services.gateway.server.parser import (
    BODY_STEP,
    MOST_PIECES,
    RequestParser,
)
from services.gateway.server.phases import Phase
from tests.support.memory.transports import cut_in_two, one_by_one

GET = b"GET /v1/models?a HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbody"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
WEBSOCKET = (
    b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
    b"upgrade: websocket\r\n\r\n"
)
TO_H2C = b"\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
LARGEST_BODY, SMALL_BODY = 10_000, 100


def made(room: Room | None = None) -> RequestParser:
    return RequestParser(LARGEST_BODY, SMALL_BODY, room or Room(LARGEST_BODY))


def posting(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size


def code(parser: RequestParser) -> str | None:
    """Of the last request's problem."""
    problem = parser.requests[-1].problem
    return None if problem is None else problem.code


def test_each_read_of_a_request_leaves_its_phase() -> None:
    parser = made()
    phases, began = [parser.phase], []
    for piece in (POST[:9], POST[9:20], POST[20:-3], POST[-3:-1], POST[-1:]):
        began.append(parser.feed(piece))
        phases.append(parser.phase)
    head, body = Phase.HEAD_CONTINUED, Phase.BODY_CONTINUED
    assert phases == [Phase.IDLE, head, head, body, body, Phase.IDLE]
    assert began == [True, False, False, False, False]
    assert len(parser.requests) == 1


def test_a_request_is_read_wherever_it_is_cut() -> None:
    for pieces in [*cut_in_two(POST), one_by_one(POST)]:
        parser = made()
        for piece in pieces:
            parser.feed(piece)
        (request,) = parser.requests
        assert (request.method, request.path, request.body) == (
            "POST",
            b"/v1/responses",
            b"body",
        )


def test_a_read_may_bring_several_requests_and_a_part() -> None:
    parser = made()
    assert parser.feed(GET + POST + GET[:5])
    assert [request.method for request in parser.requests] == ["GET", "POST"]
    assert parser.requests[0].query == b"?a"
    assert parser.phase is Phase.HEAD_CONTINUED


def test_headers_of_one_request_are_not_the_next_ones() -> None:
    first = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: a\r\ncontent-type: b\r\n"
    first += b"content-encoding: zstd\r\norigin: o\r\ntransfer-encoding: chunked\r\n"
    first += b"\r\n1\r\nb\r\n0\r\ncontent-type: trailer\r\n\r\n"
    parser = made()
    parser.feed(first + GET)
    one, two = parser.requests
    assert (one.content_type, one.coding, one.origin) == (b"a", b"zstd", b"o")
    assert (one.repeats, one.body, len(one.headers)) == (True, b"b", 6)
    assert (two.content_type, two.coding, two.origin) == (None, None, None)
    assert (two.repeats, two.headers) == (False, [(b"host", b"x")])


@pytest.mark.parametrize(
    ("version", "lines", "keeps", "is_1_0"),
    [
        (b"1.1", b"", True, False),
        (b"1.1", b"connection: close\r\n", False, False),
        (b"1.1", b"connection: keep-alive\r\n", True, False),
        (b"1.0", b"", False, True),
        (b"1.0", b"connection: keep-alive\r\n", True, True),
        (b"1.0", b"proxy-connection: keep-alive\r\n", True, True),
    ],
)
def test_the_version_is_found_whatever_keeps_the_connection(
    version: bytes, lines: bytes, keeps: bool, is_1_0: bool
) -> None:
    parser = made()
    parser.feed(b"GET / HTTP/%b\r\nhost: x\r\n%b\r\n" % (version, lines))
    (request,) = parser.requests
    assert (request.keep_alive, request.http_1_0) == (keeps, is_1_0)
    assert request.problem is None


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "PUT"])
def test_any_method_is_read(method: str) -> None:
    parser = made()
    parser.feed(GET.replace(b"GET", method.encode()))
    assert parser.requests[0].method == method


# Refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([b"?\r\n"], "bad_request", id="no HTTP"),
        pytest.param([GET.replace(b"host", b"x")], "bad_request", id="no host"),
        pytest.param([GET.replace(b"1.1", b"2.0")], "bad_request", id="HTTP/2"),
        pytest.param(
            [GET.replace(b"/v1", b"http://a b/v1")], "bad_request", id="no URL"
        ),
        pytest.param(
            [GET.replace(b"/v1", b"ftp://a/v1")], "bad_request", id="URL of no HTTP"
        ),
        pytest.param(
            [GET[:9], b"y" * LARGEST_HEAD, b"yy"], "headers_too_large", id="head"
        ),
        pytest.param(
            [GET[:-2], b"x: " + b"y" * LARGEST_HEAD + b"\r\n\r\n"],
            "headers_too_large",
            id="head in two reads",
        ),
        pytest.param(
            [CHUNKED, b"1;" + b"e" * LARGEST_HEAD, b"ee"],
            "headers_too_large",
            id="extension",
        ),
        pytest.param([posting(LARGEST_BODY + 1)], "body_too_large", id="announced"),
        pytest.param(
            [posting(LARGEST_BODY + 1) + b"b" * (LARGEST_BODY + 1)],
            "body_too_large",
            id="announced, and complete",
        ),
        pytest.param(
            [CHUNKED, b"%x\r\n" % (LARGEST_BODY + 1) + b"b" * (LARGEST_BODY + 1)],
            "body_too_large",
            id="chunks",
        ),
    ],
)
def test_a_refused_request_is_the_last(pieces: list[bytes], expected: str) -> None:
    parser = made()
    for piece in pieces:
        parser.feed(piece)
    assert parser.phase is Phase.STOPPED
    assert code(parser) == expected
    assert not parser.requests[-1].keep_alive
    assert len(parser.requests) == 1


def test_what_follows_a_refusal_in_its_read_is_not_parsed() -> None:
    parser = made()
    parser.feed(GET.replace(b"1.1", b"2.0") + GET)
    parser.feed(b"x" * (2 * LARGEST_HEAD))
    assert len(parser.requests) == 1


def test_a_refusal_from_outside_names_the_request_that_arrives() -> None:
    parser = made()
    parser.feed(POST[:-1])
    problem = made_problem()
    parser.stop(problem)
    parser.stop(problem)
    (request,) = parser.requests
    assert (request.path, request.problem) == (b"/v1/responses", problem)


def made_problem() -> errors.Problem:
    return errors.body_stalled(1)


# Memory and progress of bodies -----------------------------------------------------


def test_a_large_body_takes_memory_that_its_request_then_owns() -> None:
    room = Room(1000)
    parser = made(room)
    parser.feed(posting(500) + b"b" * 400)
    assert room.held == 400
    parser.feed(b"b" * 100)
    assert (room.held, parser.requests[0].held) == (500, 500)


def test_a_body_without_room_is_refused_and_gives_back_what_it_took() -> None:
    room = Room(300)
    parser = made(room)
    parser.feed(posting(500) + b"b" * 200)
    parser.feed(b"b" * 200)
    assert (code(parser), room.held) == ("no_capacity", 0)


def test_a_closed_parser_gives_back_its_memory() -> None:
    room = Room(1000)
    parser = made(room)
    parser.feed(posting(500) + b"b" * 400)
    parser.close()
    assert (room.held, parser.phase) == (0, Phase.STOPPED)


def test_a_body_of_many_pieces_is_joined() -> None:
    parser = RequestParser(1_000_000, 1_000_000, Room(0))
    size = 2 * MOST_PIECES + 10
    parser.feed(posting(size))
    for piece in one_by_one(b"b" * size):
        parser.feed(piece)
    assert parser.requests[0].body == b"b" * size


def test_progress_is_a_step_of_a_body() -> None:
    parser = made()
    parser.feed(posting(5000) + b"b")
    assert [parser.made_progress(), parser.made_progress()] == [True, False]
    parser.feed(b"b" * (BODY_STEP - 1))
    assert not parser.made_progress()
    parser.feed(b"b")
    assert parser.made_progress()


# Expect and upgrades ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "value", "expects"),
    [(b"1.1", b"100-Continue", True), (b"1.0", b"100-continue", False),
     (b"1.1", b"200-ok", False)],
)  # fmt: skip
def test_a_client_may_wait_before_its_body(
    version: bytes, value: bytes, expects: bool
) -> None:
    head = posting(1).replace(b"\r\n\r\n", b"\r\nexpect: %b\r\n\r\n" % value)
    parser = made()
    parser.feed(head.replace(b"1.1", version))
    assert parser.expects_continue is expects
    parser.feed(b"b" + POST[:-1])
    assert not parser.expects_continue


def test_a_websocket_ends_the_parsing_in_front_of_its_frames() -> None:
    for rest in (b"", b"\x81\x00", b"\x81\x00" * LARGEST_HEAD):
        parser = made()
        parser.feed(WEBSOCKET + rest)
        assert (parser.phase, parser.rest) == (Phase.UPGRADED, rest)
        assert parser.upgraded is not None
        assert parser.upgraded.path == b"/v1/responses"
        assert not parser.requests


def test_a_websocket_that_is_refused_is_an_ordinary_request() -> None:
    parser = made()
    parser.feed(WEBSOCKET)
    parser.stop(made_problem())
    assert parser.requests[0].path == b"/v1/responses"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(WEBSOCKET.replace(b"GET", b"POST"), id="no GET"),
        pytest.param(
            WEBSOCKET.replace(b"websocket", b"h2c, websocket"), id="another protocol"
        ),
        pytest.param(WEBSOCKET.replace(b"1.1", b"1.0"), id="HTTP/1.0"),
    ],
)
def test_another_upgrade_is_ignored(head: bytes) -> None:
    parser = made()
    parser.feed(head + GET)
    assert parser.requests[0].path == b"/v1/responses"
    assert b"upgrade" not in dict(parser.requests[0].headers)


@pytest.mark.parametrize("body", [b"body", b""])
def test_a_body_behind_an_ignored_upgrade_is_read(body: bytes) -> None:
    parser = made()
    parser.feed(posting(len(body)).replace(b"\r\n\r\n", TO_H2C) + body + GET)
    assert [request.body for request in parser.requests] == [body, b""]


def test_two_ignored_upgrades_in_one_read_are_two_requests() -> None:
    head = GET.replace(b"\r\n\r\n", TO_H2C)
    parser = made()
    parser.feed(head + head + b"?")
    assert [request.path for request in parser.requests] == [b"/v1/models"] * 2 + [b"/"]
    assert code(parser) == "bad_request"


@pytest.mark.parametrize("lines", [b"", b"connection: upgrade\r\nupgrade: h2c\r\n"])
def test_nothing_behind_connect_is_parsed(lines: bytes) -> None:
    parser = made()
    parser.feed(b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n" + lines + b"\r\n" + GET)
    (request,) = parser.requests
    assert (request.method, request.keep_alive) == ("CONNECT", False)
    assert parser.phase is Phase.STOPPED


def test_pieces_of_one_read_are_joined_before_the_next() -> None:
    parser = RequestParser(1_000_000, 1_000_000, Room(0))
    parser.feed(CHUNKED + b"1\r\nb\r\n" * (MOST_PIECES + 1))
    assert len(parser._pieces) <= MOST_PIECES
    parser.feed(b"0\r\n\r\n")
    assert parser.requests[0].body == b"b" * (MOST_PIECES + 1)


HEADED = (
    b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nAuthorization: Bearer k\r\n"
    b"Accept-Encoding: br, gzip\r\nSession_Id: s\r\nX-Proxy-Pool-Id: p\r\nx-one: 2\r\n"
    b"Transfer-Encoding: chunked\r\n"
)
LINES = [b"x-one: 1", b"accept-encoding: gzip", b"session_id: s", b"x-one: 2"]


@pytest.mark.parametrize("connection", [b"", b"connection: keep-alive\r\n"])
def test_the_lines_for_the_upstream_are_those_of_the_head(connection: bytes) -> None:
    data = HEADED + connection + b"\r\n1\r\nb\r\n0\r\nx-late: 3\r\napi-key: k\r\n\r\n"
    parser = made()
    for _ in range(2):
        parser.feed(data)
    for request in parser.requests:
        assert request.lines == lines_of(request.headers) == LINES
        assert request.told == [
            (b"authorization", b"Bearer k"),
            (b"session_id", b"s"),
            (b"x-proxy-pool-id", b"p"),
        ]


def test_no_line_is_made_when_some_are_of_the_connection() -> None:
    parser = made()
    parser.feed(HEADED + b"connection: x-one\r\n\r\n0\r\n\r\n" + POST)
    first, second = parser.requests
    assert first.lines is None
    assert b"x-one: 1" not in lines_of(first.headers)
    assert second.lines == []


def test_what_is_parsed_again_has_its_lines_once() -> None:
    parser = made()
    parser.feed(b"GET / HTTP/1.1\r\nhost: x\r\nx-one: 1\r\napi-key: k" + TO_H2C)
    (request,) = parser.requests
    assert request.told == [(b"api-key", b"k")]
    assert (request.lines or lines_of(request.headers)) == [b"x-one: 1"]
