"""Bytes behind an answer: nobody gets them, and the connection is not used again."""

import asyncio

import pytest

from services.gateway.upstream.client import UpstreamClient
from tests.support.processes.waiting import eventually
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
SURPLUS = {
    "the first byte of an answer": b"H",
    "half a status line": b"HTTP/1.1 20",
    "a line break": b"\r\n",
    "a bare LF": b"\n",
    "a bare CR": b"\r",
    "two line breaks": b"\r\n\r\n",
    "no HTTP": b"x",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a whole answer": b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
}
_SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b"
ENDED: dict[str, tuple[bytes, bytes]] = {
    "sized": (_SIZED % (2, b"hi"), b"hi"),
    "a body that ends with a line": (_SIZED % (4, b"hi\r\n"), b"hi\r\n"),
    "empty": (_SIZED % (0, b""), b""),
    "chunked": (CHUNKS + b"\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
    "chunked, with a trailer": (CHUNKS + b"\r\n2\r\nhi\r\n0\r\nx: y\r\n\r\n", b"hi"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\ncontent-length: 9\r\n\r\n", b""),
    "304": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", b""),
    "after an interim one": (
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + _SIZED % (2, b"hi"),
        b"hi",
    ),
}


class TestSurplus:
    """Bytes after an answer must not be taken for the start of another answer."""

    @pytest.mark.parametrize("ended", ENDED.values(), ids=ENDED)
    async def test_an_answer_that_ends_in_time_keeps_the_connection(
        self, ended: tuple[bytes, bytes]
    ) -> None:
        peer = Peer(ended[0])
        async with listening(peer.serve) as origin, client() as made:
            for _ in range(3):
                assert await body(await send(made, origin)) == ended[1]
        assert peer.connections == 1

    @pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
    @pytest.mark.parametrize("ended", ENDED.values(), ids=ENDED)
    async def test_one_byte_behind_an_answer_spoils_the_connection(
        self, ended: tuple[bytes, bytes], surplus: bytes
    ) -> None:
        """The answer itself is complete and passes."""
        peer = Peer(ended[0] + surplus, _SIZED % (4, b"mine"))
        async with listening(peer.serve) as origin, client() as made:
            assert await body(await send(made, origin)) == ended[1]
            assert made.open == 0
            assert await body(await send(made, origin)) == b"mine"
        assert peer.connections == 2

    @pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
    async def test_one_byte_behind_an_answer_to_head_spoils_the_connection(
        self, surplus: bytes
    ) -> None:
        empty = _SIZED % (0, b"")
        peer = Peer(empty, empty + surplus, _SIZED % (4, b"mine"))
        async with listening(peer.serve) as origin, client() as made:
            for _ in range(2):
                assert await body(await send(made, origin, head=True)) == b""
            assert await body(await send(made, origin)) == b"mine"
        assert peer.connections == 2

    @pytest.mark.parametrize("surplus", SURPLUS.values(), ids=SURPLUS)
    async def test_one_byte_on_an_idle_connection_closes_it(
        self, surplus: bytes
    ) -> None:
        writers: list[asyncio.StreamWriter] = []

        async def serve(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
            writers.append(w)
            await Peer(_SIZED % (2, b"hi")).serve(r, w)

        async with listening(serve) as origin, client() as made:
            assert await body(await send(made, origin)) == b"hi"
            assert made.open == 1
            writers[0].write(surplus)

            async def closed() -> bool:
                return made.open == 0

            await eventually(closed)

    async def test_a_last_byte_that_comes_with_surplus_spoils_it(self) -> None:
        """The answer's end and the surplus arrive in the same read."""
        whole = _SIZED % (2, b"hi")
        for at in range(1, len(whole)):
            peer = Peer(_SIZED % (4, b"mine"))

            async def serve(
                r: asyncio.StreamReader,
                w: asyncio.StreamWriter,
                peer: Peer = peer,
                at: int = at,
            ) -> None:
                if peer.connections == 0:
                    peer.connections = 1
                    await r.readexactly(len(REQUEST) + 2)
                    w.write(whole[:at])
                    await asyncio.sleep(0.01)
                    w.write(whole[at:] + b"H")
                else:
                    await peer.serve(r, w)

            async with listening(serve) as origin, client() as made:
                assert await body(await send(made, origin)) == b"hi"
                assert made.open == 0
                assert await body(await send(made, origin)) == b"mine"

    async def test_whoever_waits_for_a_connection_gets_no_spoiled_one(self) -> None:
        peer = Peer(_SIZED % (2, b"hi") + b"x", _SIZED % (4, b"mine"))
        async with listening(peer.serve) as origin:
            made = UpstreamClient(1.0, limit=1)
            first, second = await asyncio.gather(send(made, origin), send(made, origin))
            assert (await body(first), await body(second)) == (b"hi", b"mine")
            made.close()
        assert peer.connections == 2
