"""Clients on bare sockets, and upstreams that a test scripts byte by byte."""

import asyncio
import json
import os
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from tests.support.processes.stack import Stack
from tests.support.processes.waiting import eventually

Way = Literal["fin", "half", "rst"]
WAYS: tuple[Way, ...] = ("fin", "half", "rst")
PATIENCE_S = 60.0  # a guard: only a failure takes that long
TURNS = 20  # of the gateway's event loop


@dataclass(frozen=True)
class Reply:
    """A parsed answer. `body` is dechunked."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error in OpenAI's format; asserts that all members are
        present."""
        error = json.loads(self.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        return str(error["code"])


class Caller:
    """A client's connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self) -> Reply:
        """Read the next answer."""
        async with asyncio.timeout(PATIENCE_S):
            status, headers = await self.head()
            if status < 200 or status in (204, 304):
                return Reply(status, headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                return Reply(status, headers, await self._chunks())
            length = int(headers.get("content-length", "-1"))
            if length < 0:
                return Reply(status, headers, await self.reader.read())
            return Reply(status, headers, await self.reader.readexactly(length))

    async def head(self) -> tuple[int, dict[str, str]]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        named = [line.partition(": ")[::2] for line in lines]
        return int(first.split(" ")[1]), {n.lower(): value for n, value in named}

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)
        return body

    async def closed(self) -> bytes:
        """Read until the other side closes or resets."""
        rest = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while data := await self.reader.read(65_536):
                    rest += data
        return rest

    def leave(self, way: Way = "fin") -> None:
        if way == "half":
            self.writer.write_eof()
            return
        if way == "rst":
            sock = self.writer.get_extra_info("socket")
            with suppress(OSError):  # the other side was faster
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
        self.writer.transport.abort()


@asynccontextmanager
async def calling(origin: str, buffer: int | None = None) -> AsyncIterator[Caller]:
    """Open a connection. `buffer`: size of the kernel's receive buffer in bytes."""
    address = urlsplit(origin)
    sock = socket.socket()
    sock.setblocking(False)
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(sock, (address.hostname, address.port))
    except OSError:
        sock.close()
        raise
    limit = 65_536 if buffer is None else buffer
    caller = Caller(*await asyncio.open_connection(sock=sock, limit=limit))
    try:
        yield caller
    finally:
        caller.writer.transport.abort()


def post(body: bytes, *lines: bytes, path: bytes = b"/v1/responses") -> bytes:
    """The bytes of a POST request."""
    head = [b"POST %b HTTP/1.1" % path, b"host: proxy", *lines]
    head.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*head, b"", body])


def get(path: bytes, *lines: bytes) -> bytes:
    head = [b"GET %b HTTP/1.1" % path, b"host: proxy", *lines]
    return b"\r\n".join([*head, b"", b""])


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors(pid: int) -> Counter[int]:
    """Open descriptors of a process: remote port -> its connections to that port, and
    0 -> all others. Segments of its journal are not counted: mmap keeps one descriptor
    for each, and how many there are depends on how much was written."""
    ports = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports[f"socket:[{fields[9]}]"] = int(fields[2].rpartition(":")[2], 16)
    held = [link for link in links(pid) if "/journal/" not in link]
    return Counter(ports.get(link, 0) for link in held)


def links(pid: int) -> list[str]:
    """What the descriptors of a process refer to."""
    return sorted(_link(path) for path in Path(f"/proc/{pid}/fd").iterdir())


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:  # closed in the meantime
        return ""


Look = Callable[[], Awaitable[dict[str, float]]]


@asynccontextmanager
async def looking(stack: Stack) -> AsyncIterator[Look]:
    """Reads the gateway's state on demand, over one connection."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as http:

        async def look() -> dict[str, float]:
            shown = (await http.get(f"{stack.origin}/metrics")).text
            lines = [line for line in shown.splitlines() if not line.startswith("#")]
            pairs = [line.rpartition(" ")[::2] for line in lines]
            return {name.removeprefix("proxy_"): float(value) for name, value in pairs}

        yield look


async def gauge(stack: Stack, name: str) -> float:
    async with looking(stack) as look:
        return (await look())[name]


async def at_rest(stack: Stack) -> bool:
    """Whether this is the only connection, and there are no leases."""
    async with looking(stack) as look:
        shown = await look()
    asked, clients = shown["requests_in_flight"], shown["open_connections"]
    return (asked, clients, await stack.in_flight()) == (0, 1, 0)


def in_kernel(port: int) -> int:
    """Bytes that this machine's kernel holds for connections to a port: sent by one
    side and not read by the other."""
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if port in {int(end.rpartition(":")[2], 16) for end in (local, remote)}:
            total += sum(int(queue, 16) for queue in queues.split(":"))
    return total


async def read_by_gateway(stack: Stack) -> None:
    """Wait until the gateway has read all that was sent to it."""
    port = urlsplit(stack.origin).port
    assert port is not None

    async def read() -> bool:
        return in_kernel(port) == 0

    await eventually(read)
    await gauge(stack, "tasks")  # one more turn, to handle what it read last


async def stalled(stack: Stack, sent: Callable[[], int]) -> int:
    """Wait until a sender is paused by backpressure; returns how much it has sent. Each
    turn of the gateway's loop reads from every connection that is not paused, so a
    count that stays the same over several turns shows a pause, whatever the machine's
    speed."""
    async with looking(stack) as look:

        async def stays() -> bool:
            before = sent()
            for _ in range(TURNS):
                await look()
            return sent() == before

        await eventually(stays)
    return sent()


@asynccontextmanager
async def unharmed(stack: Stack, grown_mb: int = 12) -> AsyncIterator[None]:
    """Whatever happens to the gateway meanwhile: afterwards it is at rest and has not
    grown."""
    memory = resident_mb(stack.gateway.pid)
    yield
    await eventually(lambda: at_rest(stack))
    assert resident_mb(stack.gateway.pid) < memory + grown_mb
    assert "Traceback" not in stack.gateway.log.read_text()


# Upstreams --------------------------------------------------------------------


def event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def sized(body: bytes, *lines: bytes, kind: bytes = b"application/json") -> bytes:
    """An answer with a Content-Length."""
    head = [b"HTTP/1.1 200 OK", b"content-type: " + kind, *lines]
    head.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*head, b"", body])


SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read the head and body of the next request from the gateway."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length: "):
            length = int(line.removeprefix(b"content-length: "))
    return head, await reader.readexactly(length)
