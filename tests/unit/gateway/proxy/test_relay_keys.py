"""A key in an answer is masked, wherever the answer is cut."""

from itertools import pairwise
from typing import Any

import pytest

from libs.common.providers.key_echoes import SentKey
from services.gateway.capture.capture import Budget, Capture
from tests.support.memory.clock import settled, timeless
from tests.support.memory.relays import Talk

KEY = "sk-sk-proj-0123456789abcdef"
BODY = f'{{"a":"sk-sk-proj","b":"{KEY}","c":"sk-{KEY}sk-"}}'.encode()
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
]


async def relayed(key: str, headers: list[Any], *pieces: bytes) -> tuple[bytes, bytes]:
    """What the client received, and what was captured."""
    capture = Capture(b"", (None, None), 1000, Budget(100_000))
    talk = Talk(*headers, capture=capture, sent=SentKey(key))
    await settled()
    for piece in pieces:
        talk.answer.feed(piece, last=False)
    talk.answer.feed(b"", last=True)
    await settled()
    capture.end("r", 1)
    return talk.wire.sent, capture.response_body()


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(KEY) - 1, len(KEY), 1000])
@timeless
async def test_a_key_is_masked_wherever_the_answer_is_cut(size: int) -> None:
    """However the pieces split the key."""
    for offset in range(size if size < 1000 else 1):
        cuts = [0, *range(offset, len(BODY), size), len(BODY)]
        pieces = [BODY[a:b] for a, b in pairwise(cuts) if a < b]
        got, captured = await relayed(KEY, HEADERS, *pieces)
        body = got.partition(b"\r\n\r\n")[2]
        mask = b"[upstream key]".ljust(len(KEY), b"*")
        assert body == captured == BODY.replace(KEY.encode(), mask)
        assert len(body) == len(BODY)


@timeless
async def test_a_header_that_shows_the_key_is_masked() -> None:
    got, _ = await relayed(KEY, [(b"x-key", KEY.encode())], b"{}")
    assert KEY.encode() not in got
    assert b"x-key: [upstream key]*" in got


@pytest.mark.parametrize("key", ["EMPTY", "", "another-key-0123456789"])
@timeless
async def test_an_answer_without_the_key_is_as_it_was(key: str) -> None:
    got, captured = await relayed(key, HEADERS, BODY[:9], BODY[9:])
    assert captured == BODY
    assert got.endswith(BODY)


@timeless
async def test_a_packed_stream_is_never_held_back() -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-encoding", b"br")]
    piece = b"packed sk-"
    talk = Talk(*headers, sent=SentKey(KEY))
    await settled()
    talk.answer.feed(piece, last=False)
    assert piece in talk.wire.sent
