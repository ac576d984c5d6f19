"""HTTP/1.1 messages byte for byte, for tests that compare what was sent. Parsed by
hand: a parser under test must not check itself."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from libs.common.headers import Header, find

LARGEST_HEAD = 1_048_576


@dataclass(frozen=True)
class Message:
    """A request or an answer; header names are in lower case."""

    start: bytes
    headers: tuple[Header, ...]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])


async def read_request(reader: asyncio.StreamReader) -> Message:
    """Raises `IncompleteReadError` when the client sends no more."""
    start, headers = await _read_head(reader)
    framed = {name for name, _ in headers} & {b"content-length", b"transfer-encoding"}
    return Message(start, headers, await _read_body(reader, headers) if framed else b"")


async def read_answer(reader: asyncio.StreamReader, method: str) -> Message:
    """Read the answer to a request of that method; skips interim answers."""
    start, headers = await _read_head(reader)
    answer = Message(start, headers, b"")
    if answer.status < 200:
        return await read_answer(reader, method)
    if method == "HEAD" or answer.status in (204, 304):
        return answer
    return Message(start, headers, await _read_body(reader, headers))


async def _read_head(
    reader: asyncio.StreamReader,
) -> tuple[bytes, tuple[Header, ...]]:
    head = await reader.readuntil(b"\r\n\r\n")
    start, *lines = head[:-4].split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    return start, tuple((name.lower(), value.strip(b" \t")) for name, _, value in pairs)


async def _read_body(reader: asyncio.StreamReader, headers: Iterable[Header]) -> bytes:
    length = find(headers, b"content-length")
    if length is not None:
        return await reader.readexactly(int(length))
    if find(headers, b"transfer-encoding") is None:
        return await reader.read()
    body = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    while await reader.readline() != b"\r\n":
        pass  # trailers
    return body


@dataclass(frozen=True)
class Reply:
    """What an upstream writes: pieces with pauses between them, then optionally the
    connection's end."""

    pieces: tuple[bytes, ...] = ()
    pause_s: float = 0.0
    closes: bool = False


class Scripted:
    """An upstream that answers every request with `reply` and records requests."""

    def __init__(self) -> None:
        self.reply = Reply()
        self.got: list[Message] = []

    async def handle(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(asyncio.IncompleteReadError):
            while not writer.is_closing():
                self.got.append(await read_request(reader))
                reply = self.reply
                await write_pieces(writer, reply.pieces, reply.pause_s)
                if reply.closes:
                    return


async def write_pieces(
    writer: asyncio.StreamWriter, pieces: Iterable[bytes], pause_s: float = 0.0
) -> None:
    """Write each piece separately."""
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause_s)


def cut(data: bytes, places: Iterable[int]) -> tuple[bytes, ...]:
    """Cut `data` at these positions (modulo its length)."""
    ends = sorted({place % len(data) for place in places} - {0}) if data else []
    return tuple(
        data[start:end]
        for start, end in zip([0, *ends], [*ends, len(data)], strict=True)
    )


def chunked(
    pieces: Iterable[bytes], extension: bytes = b"", trailer: bytes = b""
) -> bytes:
    """A body in chunks. Empty chunks, which would end it, are left out."""
    chunks = (
        b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece
    )
    return b"".join(chunks) + b"0\r\n" + trailer + b"\r\n"
