"""An upstream that violates the protocol as the request's `x-act` header says, and
records what it receives. Anything but one well-formed request is a breach."""

import asyncio
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from websockets.utils import accept_key

from tests.attack.seen import START, Malformed, Seen, header_of
from tests.attack.tokens import EVIL, TOKEN, answer, events
from tests.support.clients.frames import CLOSE, TEXT, frame, read_frame
from tests.support.clients.raw import CHUNKED, SSE, chunk

ONCE = (b"host", b"authorization")
OK = b"HTTP/1.1 200 OK\r\n"


@dataclass
class Upstream:
    """Serves all connections of the gateway."""

    draw: random.Random
    keys: frozenset[bytes]
    seen: list[Seen] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    again: set[bytes] = field(default_factory=set)  # tokens whose first try was failed
    extra_head: bytes = b""  # raw header lines for the next answers
    reason: bytes = b"OK"
    late: int = 0  # unsolicited answers that are still to be sent
    port: int = 0

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._serve_one(reader, writer):
                pass

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Serve one request; returns whether the connection is kept."""
        try:
            request = await self._read(reader, writer)
        except Malformed as error:
            self.breaches.append(str(error)[:300])
            return False
        if request.header(b"upgrade") == b"websocket":
            await self._socket(request, reader, writer)
            return False
        act = ACTS.get(request.header(b"x-act"), ACTS[b"json"])
        keeps = await act(self, request.token, writer)
        await writer.drain()
        return keeps

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Seen:
        head = await reader.readuntil(b"\r\n\r\n")
        start, *lines = head[:-4].split(b"\r\n")
        found = START.fullmatch(start)
        if found is None:
            raise Malformed(f"request line {start!r}")
        headers = tuple(map(header_of, lines))
        self._look(start, headers)
        early = dict(headers).get(b"x-act") == b"early"
        if early:  # answers before it has read the body
            writer.write(sized(dict(headers)[b"x-token"]))
            await writer.drain()
        length = int(dict(headers).get(b"content-length", b"0"))
        body = await reader.readexactly(length)
        request = Seen(found[1], found[2], headers, body)
        self._compare(request)
        self.seen.append(request)
        return request

    def _look(self, start: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        names = [name for name, _ in headers]
        if any(names.count(name) != 1 for name in ONCE):
            raise Malformed(f"host or authorization missing or repeated: {names}")
        if names.count(b"content-length") > 1 or b"transfer-encoding" in names:
            raise Malformed(f"framing: {headers}")
        if not dict(headers).get(b"content-length", b"0").isdigit():
            raise Malformed(f"length: {headers}")
        if dict(headers)[b"authorization"] not in self.keys:
            raise Malformed("authorization is not an upstream key's")
        if b"x-evil" in names or b" /v1/evil" in start:
            raise Malformed(f"smuggled or split: {start!r} {headers}")

    def _compare(self, request: Seen) -> None:
        """Head, target and body must belong to the same request."""
        token = request.token
        others = set(TOKEN.findall(request.target + request.body)) - {token, EVIL}
        if token and others:
            raise Malformed(f"a request of several: {token!r} and {others}")

    # Sockets -----------------------------------------------------------------

    async def _socket(
        self,
        request: Seen,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        accepted = accept_key(request.header(b"sec-websocket-key").decode())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n"
            b"upgrade: websocket\r\nsec-websocket-accept: %b\r\n%b\r\n"
            % (accepted.encode(), self.extra_head)
        )
        while True:
            opcode, payload = await read_frame(reader)
            if opcode == CLOSE:
                writer.write(frame(CLOSE, payload, masked=False))
                return
            if opcode == TEXT:
                await self._turn(payload, writer)

    async def _turn(self, payload: bytes, writer: asyncio.StreamWriter) -> None:
        tokens = TOKEN.findall(payload)
        if len(set(tokens)) != 1:
            self.breaches.append(f"a frame of several: {payload[:200]!r}")
            return
        self.seen.append(Seen(b"WS", b"", ((b"x-token", tokens[0]),), payload))
        for data in events(tokens[0]):
            told = data.split(b"data: ")[1].strip()
            writer.write(frame(TEXT, told, masked=False))
            if b'"act": "trickle"' in payload:
                await writer.drain()
                await asyncio.sleep(self.draw.random() * 0.004)
            if b'"act": "cut"' in payload and b"delta" in told:
                reset(writer)
                raise ConnectionResetError
        await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# Answers ----------------------------------------------------------------------

Act = Callable[[Upstream, bytes, asyncio.StreamWriter], Awaitable[bool]]


def head(token: bytes, *lines: bytes) -> bytes:
    named = (b"content-type: application/json", b"x-token: " + token, *lines)
    if token == EVIL:
        named = (b"x-evil: 1", *named)
    return OK + b"".join(line + b"\r\n" for line in named) + b"\r\n"


def sized(token: bytes, body: bytes | None = None, more: int = 0) -> bytes:
    """`more`: bytes that Content-Length promises but that are not sent."""
    body = answer(token) if body is None else body
    return head(token, b"content-length: %d" % (len(body) + more)) + body


def stream(token: bytes) -> bytes:
    told = b"".join(map(chunk, events(token)))
    return SSE + b"x-token: " + token + b"\r\n" + CHUNKED + told + b"0\r\n\r\n"


async def _pieces(writer: asyncio.StreamWriter, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)


async def _json(up: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    start = b"HTTP/1.1 200 " + up.reason + b"\r\n" + up.extra_head
    writer.write(sized(token).replace(OK, start, 1))
    return True


async def _chunked(up: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    body = answer(token)
    at = up.draw.randrange(1, len(body))
    told = head(token, b"transfer-encoding: chunked")
    writer.write(told + chunk(body[:at]) + chunk(body[at:]) + b"0\r\nx-t: z\r\n\r\n")
    return True


async def _closed(_: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    writer.write(head(token, b"connection: close") + answer(token))
    return False


async def _stream(_: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    writer.write(stream(token))
    return True


async def _trickle(up: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    data = stream(token) if up.draw.random() < 0.5 else sized(token)
    step = max(1, len(data) // 40)
    await _pieces(writer, (data[i : i + step] for i in range(0, len(data), step)))
    return True


async def _interim(_: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    early = b"HTTP/1.1 103 Early Hints\r\nx-token: %b\r\n\r\n" % EVIL
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + early * 2 + sized(token))
    return True


async def _early(_: Upstream, __: bytes, ___: asyncio.StreamWriter) -> bool:
    return True  # it has answered


async def _twice(_: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    writer.write(sized(token) + sized(EVIL))
    return True


async def _twice_late(up: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    writer.write(sized(token))
    await writer.drain()
    up.late += 1
    await asyncio.sleep(0.01)
    writer.write(sized(EVIL))
    up.late -= 1
    return True


async def _half_more(up: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    """Part of an unsolicited answer, in the same write."""
    more = sized(EVIL)
    writer.write(sized(token) + more[: up.draw.randrange(1, len(more) - 1)])
    return True


async def _crlf_more(_: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    writer.write(sized(token) + b"\r\n")
    return True


async def _long(_: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    """More bytes than Content-Length promises."""
    writer.write(sized(token) + b'{"token":"%b"}' % EVIL * 3)
    return True


async def _long_chunks(_: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    writer.write(stream(token) + chunk(EVIL) + b"0\r\n\r\n")
    return True


async def _short(_: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    writer.write(sized(token, more=10))
    return False


async def _cut_stream(up: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    data = stream(token)
    writer.write(data[: up.draw.randrange(len(data) // 2, len(data) - 5)])
    await writer.drain()
    return False


async def _reset_within(up: Upstream, token: bytes, w: asyncio.StreamWriter) -> bool:
    data = sized(token)
    w.write(data[: up.draw.randrange(1, len(data))])
    await w.drain()
    reset(w)
    return False


async def _reset_once(up: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    if token in up.again:
        return await _json(up, token, writer)
    up.again.add(token)
    reset(writer)
    return False


async def _refuse_once(up: Upstream, token: bytes, w: asyncio.StreamWriter) -> bool:
    if token in up.again:
        return await _stream(up, token, w)
    up.again.add(token)
    body = b'{"error":{"message":"%b","type":"server_error","code":null}}' % token
    lines = (b"HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\n", b"")
    w.write(lines[0] + b"content-length: %d\r\n\r\n" % len(body) + body)
    return True


async def _late(up: Upstream, token: bytes, writer: asyncio.StreamWriter) -> bool:
    """Many clients have disconnected by then."""
    await asyncio.sleep(up.draw.random() * 0.03)
    return await (_json if up.draw.random() < 0.5 else _stream)(up, token, writer)


ACTS: dict[bytes, Act] = {
    b"json": _json,
    b"chunked": _chunked,
    b"closed": _closed,
    b"stream": _stream,
    b"trickle": _trickle,
    b"interim": _interim,
    b"early": _early,
    b"late": _late,
    b"reset-once": _reset_once,
    b"refuse-once": _refuse_once,
    b"short": _short,
    b"cut-stream": _cut_stream,
    b"reset-within": _reset_within,
    b"twice": _twice,
    b"twice-late": _twice_late,
    b"half-more": _half_more,
    b"crlf-more": _crlf_more,
    b"long": _long,
    b"long-chunks": _long_chunks,
}
