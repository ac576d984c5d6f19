"""How long the upstream client waits: for answers, slow readers, and a place."""

import asyncio

import pytest

from services.gateway.upstream.client import (
    NotSent,
    Origin,
    Slow,
    TimedOut,
    Timeouts,
    UpstreamClient,
)
from services.gateway.upstream.response import HIGH_WATER
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually
from tests.support.upstreams.scripted import Peer, body, client, listening, send

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"])
async def test_the_deadline_ends_head_and_body(raw: bytes) -> None:
    async with listening(Peer(raw).serve) as origin, client() as made:
        with pytest.raises(TimedOut):
            await body(await send(made, origin, seconds=1))


@pytest.mark.parametrize(
    ("raw", "patience"),
    [
        (b"", Timeouts(first_s=0.05)),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", Timeouts(idle_s=0.05)),
    ],
    ids=["before the head", "in the body"],
)
async def test_silence_ends_an_answer_before_its_deadline(
    raw: bytes, patience: Timeouts
) -> None:
    async with listening(Peer(raw).serve) as origin, client(patience) as made:
        with pytest.raises(Slow):
            await body(await send(made, origin))


async def test_a_slow_reader_holds_the_sender_back() -> None:
    """The peer can send far more than is read; little of it is buffered."""
    sent = 0
    size = 200 * HIGH_WATER

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        piece = b"x" * 65_536
        while sent < size:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
        writer.close()
        await writer.wait_closed()  # the rest must still arrive

    async with listening(flood) as origin, client() as made:
        answer = await send(made, origin)
        before = -1

        async def stands_still() -> bool:
            nonlocal before
            before, stood = sent, sent == before
            return stood and sent > 0

        await eventually(stands_still, every_s=0.1)
        assert sent < size / 2
        received = 0
        while chunk := await answer.next():
            assert len(chunk) <= 4 * HIGH_WATER
            received += len(chunk)
        assert received == size


async def test_requests_beyond_the_limit_wait_their_turn() -> None:
    peer = Peer(
        *(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % n for n in range(6))
    )
    made = UpstreamClient(1.0, limit=2)
    async with listening(peer.serve) as origin:
        asking = [asyncio.ensure_future(send(made, origin)) for _ in range(6)]
        assert {await body(await one) for one in asking} == {
            b"%d" % n for n in range(6)
        }
        assert peer.connections == 2
    made.close()


async def test_a_request_that_waits_for_too_long_is_not_sent() -> None:
    peer = Peer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi")
    made = UpstreamClient(1.0, limit=1)
    async with listening(peer.serve) as origin:
        held = await send(made, origin)
        with pytest.raises(NotSent, match="no connection became free"):
            await send(made, origin, seconds=0.05)
        next_one = asyncio.ensure_future(send(made, origin))
        held.close()  # its connection closes: the next request dials
        (await next_one).close()
        assert peer.connections == 2
    made.close()


async def test_a_dial_that_fails_gives_its_place_back() -> None:
    made = UpstreamClient(1.0, limit=1)
    nobody = Origin("http", "127.0.0.1", free_port())
    for _ in range(3):
        with pytest.raises(NotSent, match="Connection refused"):
            await send(made, nobody)
    made.close()
