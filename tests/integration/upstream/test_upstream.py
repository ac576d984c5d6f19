"""The upstream client against scripted servers: what it reads, and what ends a
connection."""

import asyncio
import socket
import struct

import pytest

from services.gateway.upstream.client import Broken, Interrupted, NotSent, Origin
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually
from tests.support.upstreams.asking import answer_of
from tests.support.upstreams.scripted import (
    CHUNKS,
    REQUEST,
    Peer,
    body,
    client,
    listening,
    send,
)

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("raw", "status", "expected", "kept"),
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", 200, b"hi", True,
            id="length",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            b"1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
            200, b"hi", True, id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhi", 200, b"hi", False,
            id="until the connection ends",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True, id="204"),
        pytest.param(
            b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n", 304, b"", True, id="304"
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            200, b"hi", True, id="after interim answers",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
            200, b"hi", False, id="asked to close",
        ),
    ],
)  # fmt: skip
async def test_framings(raw: bytes, status: int, expected: bytes, kept: bool) -> None:
    peer = Peer(raw)
    async with listening(peer.serve) as origin, client() as made:
        for _ in range(2):
            answer = await send(made, origin)
            assert (answer.status, await body(answer)) == (status, expected)
            assert answer.ended
            assert b"link" not in dict(answer.headers)
        assert peer.connections == (1 if kept else 2)


async def test_head_has_no_body_whatever_its_length_says() -> None:
    peer = Peer(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n")
    async with listening(peer.serve) as origin, client() as made:
        answer = await send(made, origin, head=True)
        assert await body(answer) == b""


async def test_trailers_do_not_change_the_head() -> None:
    peer = Peer(CHUNKS + b"\r\n2\r\nhi\r\n0\r\nx-late: 7\r\n\r\n")
    async with listening(peer.serve) as origin, client() as made:
        answer = await send(made, origin)
        assert await body(answer) == b"hi"
        assert dict(answer.headers) == {b"transfer-encoding": b"chunked"}


async def test_a_second_answer_spoils_the_connection() -> None:
    one = b"HTTP/1.1 200 OK\r\nx-n: 1\r\ncontent-length: 2\r\n\r\nhi"
    peer = Peer(one + one)
    async with listening(peer.serve) as origin, client() as made:
        for _ in range(2):
            answer = await send(made, origin)
            assert await body(answer) == b"hi"
            assert answer.headers.count((b"x-n", b"1")) == 1
        assert peer.connections == 2


async def test_an_answer_before_the_request_was_sent_ends_the_connection() -> None:
    """Unsent bytes would precede the next request."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()  # and reads nothing

    async with listening(refuse) as origin, client() as made:
        deadline = asyncio.get_running_loop().time() + 5
        large = b"x" * 30_000_000
        for _ in range(2):
            answer = await answer_of(made, origin, REQUEST, large, deadline)
            assert (answer.status, await body(answer)) == (413, b"no")


async def test_a_reset_without_framing_is_no_end() -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await writer.drain()
        sock = writer.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    async with listening(reset) as origin, client() as made:
        answer = await send(made, origin)
        with pytest.raises(Interrupted):
            await body(answer)


async def test_stale_connections_are_all_given_up_at_once() -> None:
    ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
    peer = Peer(ok, ok, ok, None, ok)
    async with listening(peer.serve) as origin, client() as made:
        answers = await asyncio.gather(*(send(made, origin) for _ in range(3)))
        for answer in answers:
            await body(answer)
        with pytest.raises(Broken):
            await send(made, origin)
        assert await body(await send(made, origin)) == b"hi"


async def test_closing_a_finished_answer_leaves_its_connections_next_user_alone() -> (
    None
):
    """The connection may belong to another request as soon as the body has ended."""
    peer = Peer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
    async with listening(peer.serve) as origin, client() as made:
        first = await send(made, origin)
        assert await body(first) == b"hi"
        asking = asyncio.ensure_future(send(made, origin))
        await asyncio.sleep(0)
        first.close()
        assert await first.next() == b""
        assert await body(await asking) == b"hi"
        assert peer.connections == 1


async def test_an_answer_given_up_closes_its_connection() -> None:
    peer = Peer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi")
    async with listening(peer.serve) as origin, client() as made:
        answer = await send(made, origin)
        answer.close()

        async def closed() -> bool:
            return peer.gone == 1

        await eventually(closed)


async def test_giving_up_before_the_head_closes_the_connection() -> None:
    peer = Peer(b"")
    async with listening(peer.serve) as origin, client() as made:
        asking = asyncio.ensure_future(send(made, origin))

        async def connected() -> bool:
            return peer.connections == 1

        await eventually(connected)
        asking.cancel()

        async def closed() -> bool:
            return peer.gone == 1

        await eventually(closed)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(None, id="closes"),
        pytest.param(b"\x16\x03\x01 nonsense\r\n\r\n", id="garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, id="endless head"),
    ],
)
async def test_no_answer_is_broken(raw: bytes | None) -> None:
    async with listening(Peer(raw).serve) as origin, client() as made:
        with pytest.raises(Broken) as broken:
            await send(made, origin)
        assert not broken.value.reused


async def test_a_kept_connection_that_died_says_so() -> None:
    peer = Peer(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", None)
    async with listening(peer.serve) as origin, client() as made:
        await body(await send(made, origin))
        with pytest.raises(Broken) as broken:
            await send(made, origin)
        assert broken.value.reused


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nhi",
        CHUNKS + b"connection: close\r\n\r\n2\r\nhi\r\n",
        CHUNKS + b"\r\n2\r\nhi\r\nzz\r\n",
    ],
    ids=["length lies", "chunks end early", "chunks lie"],
)
async def test_a_body_cut_short_is_interrupted(raw: bytes) -> None:
    async with listening(Peer(raw).serve) as origin, client() as made:
        answer = await send(made, origin)
        assert await answer.next() == b"hi"
        with pytest.raises(Interrupted):
            await answer.next()


async def test_nobody_there_is_not_sent() -> None:
    async with client() as made:
        with pytest.raises(NotSent):
            await send(made, Origin("http", "127.0.0.1", free_port()))


async def test_a_peer_without_tls_is_not_sent() -> None:
    async with listening(Peer(b"x").serve) as origin, client() as made:
        with pytest.raises(NotSent):
            await send(made, Origin("https", origin.host, origin.port))


FAULTY = {
    "a length and chunks": b"content-length: 2\r\ntransfer-encoding: chunked\r\n",
    "chunks and a length": b"transfer-encoding: chunked\r\ncontent-length: 2\r\n",
    "two lengths": b"content-length: 2\r\ncontent-length: 3\r\n",
    "the same length twice": b"content-length: 2\r\ncontent-length: 2\r\n",
    "a list of lengths": b"content-length: 2, 2\r\n",
    "a signed length": b"content-length: +2\r\n",
    "a folded header": b"x: a\r\n b\r\ncontent-length: 2\r\n",
    "a bare CR": b"x: a\rb\r\ncontent-length: 2\r\n",
    "a bare LF": b"x: a\nb: c\r\ncontent-length: 2\r\n",
    "NUL": b"x: a\0b\r\ncontent-length: 2\r\n",
    "a space before the colon": b"content-length : 2\r\n",
}


@pytest.mark.parametrize("lines", FAULTY.values(), ids=FAULTY)
async def test_an_answer_with_faulty_framing_is_none(lines: bytes) -> None:
    peer = Peer(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n2\r\nhi\r\n0\r\n\r\n")
    async with listening(peer.serve) as origin, client() as made:
        with pytest.raises(Broken):
            await send(made, origin)
        assert made.open == 0
