"""Answers as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.headers import Header
from libs.common.name_table import LONGEST_NAME, MOST_NAMES
from services.gateway.server import framing
from services.gateway.server.framing import (
    CHUNKED,
    CLOSE,
    LAST_CHUNK,
    bodiless,
    chunk,
    own_head,
    relayed_head,
    status_line,
)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK\r\n"),
        (429, b"HTTP/1.1 429 Too Many Requests\r\n"),
        (529, b"HTTP/1.1 529 \r\n"),  # an upstream's own invention
    ],
)
def test_a_status_has_its_phrase_if_there_is_one(status: int, line: bytes) -> None:
    assert status_line(status) == line


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        pytest.param([(b"x", b"y"), (b"x", b"z")], b"x: y\r\nx: z\r\n", id="in order"),
        pytest.param([(b"set-cookie", b"a=b")], b"", id="cookies"),
        pytest.param([(b"x-proxy-reason", b"another")], b"", id="another proxy's"),
        pytest.param([(b"openai-organization", b"org")], b"", id="the account"),
        pytest.param(
            [(b"transfer-encoding", b"chunked"), (b"keep-alive", b"timeout=5")], b"",
            id="of the hop",
        ),
        pytest.param(
            [(b"connection", b"close"), (b"x", b"y")], b"x: y\r\n", id="close"
        ),
        pytest.param(
            [(b"connection", b"X-Hop, close"), (b"x-hop", b"1"), (b"x", b"y")],
            b"x: y\r\n", id="named by connection",
        ),
        pytest.param(
            [(b"connection", b"content-length"), (b"content-length", b"1")],
            b"content-length: 1\r\n", id="a length, whoever names it",
        ),
        pytest.param([(b"x", b"\xff\xfe")], b"x: \xff\xfe\r\n", id="odd bytes"),
    ],
)  # fmt: skip
def test_what_concerns_the_upstreams_hop_stays_there(
    headers: list[Header], kept: bytes
) -> None:
    head, sized, limited = relayed_head(
        200, headers, b"x-proxy-attempts: 1\r\n", CHUNKED
    )
    ours = b"x-proxy-attempts: 1\r\n" + CHUNKED
    assert head == b"HTTP/1.1 200 OK\r\n" + kept + ours + b"\r\n"
    assert (sized, limited) == (b"content-length" in kept, False)


@pytest.mark.parametrize(
    ("headers", "sized", "limited"),
    [
        pytest.param([(b"x", b"y")], False, False, id="neither"),
        pytest.param([(b"content-length", b"1")], True, False, id="a length"),
        pytest.param([(b"x-ratelimit-limit-tokens", b"1")], False, True, id="a limit"),
        pytest.param(
            [(b"x-ratelimit-a", b"1"), (b"content-length", b"1"), (b"x", b"y")],
            True, True, id="both",
        ),
        pytest.param(
            [(b"x-ratelimit-a", b"1"), (b"connection", b"x-ratelimit-a")],
            False, True, id="a limit of the hop",
        ),
    ],
)  # fmt: skip
def test_what_an_upstreams_headers_say(
    headers: list[Header], *, sized: bool, limited: bool
) -> None:
    for _ in range(2):  # the second time from memory
        assert relayed_head(200, headers, b"", b"")[1:] == (sized, limited)


def test_odd_upstreams_do_not_fill_memory() -> None:
    headers = [(b"x" * LONGEST_NAME + b"y", b"1")]
    headers += [(b"x-many-%d" % number, b"1") for number in range(MOST_NAMES + 1)]
    for _ in range(2):
        head, _, _ = relayed_head(200, headers, b"", b"")
        assert head.split(b"\r\n")[1:-2] == [b": ".join(header) for header in headers]
    assert len(framing._KNOWN) == MOST_NAMES
    assert max(map(len, framing._KNOWN)) <= LONGEST_NAME


def test_our_own_head_is_what_was_given() -> None:
    head = own_head(503, [(b"retry-after", b"1")], CLOSE)
    assert head == (
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n"
        b"connection: close\r\n\r\n"
    )


@given(pieces=st.lists(st.binary(min_size=1, max_size=40)))
def test_chunks_can_be_read_again(pieces: list[bytes]) -> None:
    wire = b"".join(map(chunk, pieces)) + LAST_CHUNK
    read = []
    while True:
        size, _, wire = wire.partition(b"\r\n")
        if size == b"0":
            break
        length = int(size, 16)
        read.append(wire[:length])
        assert wire[length : length + 2] == b"\r\n"
        wire = wire[length + 2 :]
    assert (read, wire) == (pieces, b"\r\n")


@pytest.mark.parametrize("size", [1, 15, 16, 4095, 4096, 4097, 70_000])
def test_a_chunk_names_its_size(size: int) -> None:
    assert chunk(b"x" * size) == f"{size:x}\r\n{'x' * size}\r\n".encode()


@pytest.mark.parametrize(
    ("method", "status", "empty"),
    [
        ("GET", 200, False),
        ("HEAD", 200, True),
        ("GET", 204, True),
        ("GET", 304, True),
        ("GET", 199, True),
        ("GET", 404, False),
    ],
)
def test_some_answers_have_no_body(method: str, status: int, empty: bool) -> None:
    assert bodiless(method, status) is empty
