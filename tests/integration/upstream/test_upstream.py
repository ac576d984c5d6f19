"""The upstream client against scripted servers."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from services.gateway.upstream.client import (
    Answer,
    Broken,
    Interrupted,
    NotSent,
    Origin,
    Slow,
    TimedOut,
    Timeouts,
    UpstreamClient,
)
from services.gateway.upstream.connection import NO_TIMEOUTS
from services.gateway.upstream.response import HIGH_WATER
from tests.support.processes.ports import free_port
from tests.support.processes.waiting import eventually

pytestmark = pytest.mark.asyncio
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"

CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Peer:
    """A server that answers each request with the next of `answers`; the last is
    repeated. None closes the connection instead."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.gone = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, EOFError):
            pass
        finally:
            self.gone += 1
            writer.close()

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length: 2" in head:
            await reader.readexactly(2)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            return False
        writer.write(answer)
        await writer.drain()
        return b"connection: close" not in answer


@asynccontextmanager
async def listening(handle: Handle) -> AsyncIterator[Origin]:
    serving: set[asyncio.Task[None]] = set()

    async def serve(r: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        # A canceled handler upsets asyncio's streams (Python 3.11).
        with suppress(asyncio.CancelledError):
            await handle(r, w)
            if not w.is_closing():
                await r.read()  # until the client disconnects
        w.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1])
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


@asynccontextmanager
async def client(patience: Timeouts = NO_TIMEOUTS) -> AsyncIterator[UpstreamClient]:
    made = UpstreamClient(1.0, patience)

    async def look() -> None:
        while True:
            await asyncio.sleep(0.01)
            made.check(asyncio.get_running_loop().time())

    looking = asyncio.create_task(look())
    yield made
    looking.cancel()
    made.close()


async def send(
    made: UpstreamClient, origin: Origin, *, seconds: float = 5.0, head: bool = False
) -> Answer:
    deadline = asyncio.get_running_loop().time() + seconds
    return await made.send(origin, REQUEST, b"{}", deadline, bodiless=head)


async def body(answer: Answer) -> bytes:
    whole = b""
    while chunk := await answer.next():
        whole += chunk
    return whole


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
            answer = await made.send(origin, REQUEST, large, deadline, bodiless=False)
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
