"""A key in an answer is masked, wherever the answer is cut."""

import asyncio
from itertools import pairwise
from typing import Any, cast

import pytest

from libs.common.providers.key_echoes import SentKey
from services.gateway.capture.recorder import Budget, Capture
from services.gateway.proxy.relay import Relay
from services.gateway.server.connection import Connection
from services.gateway.upstream.client import Answer

pytestmark = pytest.mark.asyncio
KEY = "sk-sk-proj-0123456789abcdef"
BODY = f'{{"a":"sk-sk-proj","b":"{KEY}","c":"sk-{KEY}sk-"}}'.encode()
HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(BODY)),
]


class Client:
    """As much of a client's connection as a relay needs."""

    paused = False
    on_drain: Any = None

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.got: list[bytes] = []

    def begin(self, status: int, headers: list[Any], ours: bytes) -> bytes:
        return b"%d\r\n" % status + b"".join(b"%b: %b\r\n" % h for h in headers) + ours

    def send(self, head: bytes, data: bytes, *, last: bool) -> None:
        self.got.append(head + data)


class Upstream:
    """An answer in pieces."""

    status, waiting = 200, True

    def __init__(self, headers: list[Any], *pieces: bytes) -> None:
        self.headers = headers
        self._pieces = pieces

    def resume(self) -> None:
        pass

    def flow_into(self, relay: Relay) -> None:
        for piece in self._pieces:
            relay.feed(piece, last=False)
        relay.feed(b"", last=True)


async def relayed(key: str, headers: list[Any], *pieces: bytes) -> tuple[bytes, bytes]:
    """What the client received, and what was captured."""
    client, capture = Client(), Capture(b"", (None, None), 1000, Budget(100_000))
    relay = Relay(
        cast(Answer, Upstream(headers, *pieces)),
        cast(Connection, client),
        capture,
        SentKey(key),
    )
    await relay.run(b"\r\n")
    relay.finish()
    capture.end("r", 1)
    captured = capture.raw().response
    assert captured is not None
    return b"".join(client.got), b"".join(captured.chunks)


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(KEY) - 1, len(KEY), 1000])
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


async def test_a_header_that_shows_the_key_is_masked() -> None:
    got, _ = await relayed(KEY, [(b"x-key", KEY.encode())], b"{}")
    assert KEY.encode() not in got
    assert b"x-key: [upstream key]*" in got


@pytest.mark.parametrize("key", ["EMPTY", "", "another-key-0123456789"])
async def test_an_answer_without_the_key_is_as_it_was(key: str) -> None:
    got, captured = await relayed(key, HEADERS, BODY[:9], BODY[9:])
    assert captured == BODY
    assert got.endswith(BODY)


async def test_a_packed_stream_is_never_held_back() -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-encoding", b"br")]
    piece = b"packed sk-"
    client = Client()
    relay = Relay(
        cast(Answer, Upstream(headers, piece)),
        cast(Connection, client),
        None,
        SentKey(KEY),
    )
    await relay.run(b"\r\n")
    relay.finish()
    assert client.got[0].endswith(piece)
