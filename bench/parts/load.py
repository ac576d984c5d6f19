"""The load generator: keep-alive connections that send a request, read the answer and
send the next. Parses only the framing; an answer other than 200 ends the run."""

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from bench.parts import wire

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = b"\r\ntransfer-encoding: chunked"
_clock = time.perf_counter


class LoadError(Exception):
    """The server under test sent an unexpected answer."""


@dataclass(slots=True)
class Tally:
    """Timings of all connections in seconds, in order of completion."""

    whole: list[float] = field(default_factory=list)  # until an answer's last byte
    first: list[float] = field(default_factory=list)  # until its first body byte
    error: str | None = None


class _Asker(asyncio.Protocol):
    """One connection. After `stop`, the current answer is the last. `every_s`: the
    time from one request to the next; 0: as soon as an answer is complete."""

    def __init__(
        self, requests: Iterator[bytes], tally: Tally, every_s: float = 0.0
    ) -> None:
        self._requests = requests
        self._tally = tally
        self._every_s = every_s
        self._due = 0.0  # of the loop's clock
        self._transport: asyncio.Transport | None = None
        self._asked_at = 0.0
        self._stopped = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self._tally.error = self._tally.error or "a connection was closed"
            self.over.set_result(None)

    def ask(self) -> None:
        if self._stopped:
            self._end()
            return
        assert self._transport is not None
        self._due = self._due or asyncio.get_running_loop().time()
        self._begin()
        self._asked_at = _clock()
        self._transport.write(next(self._requests))

    def stop(self) -> None:
        self._stopped = True

    def _begin(self) -> None:
        """Reset the state of the last answer."""
        raise NotImplementedError

    def _done(self) -> None:
        self._tally.whole.append(_clock() - self._asked_at)
        if self._every_s and not self._stopped:
            self._due += self._every_s
            asyncio.get_running_loop().call_at(self._due, self.ask)
        else:
            self.ask()

    def _fail(self, data: bytes) -> None:
        self._tally.error = repr(data[:300])
        self._end()

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
        if self._transport is not None:
            self._transport.close()


class JsonAsker(_Asker):
    """Answers with a Content-Length, or in chunks, as some proxies pass them on."""

    def _begin(self) -> None:
        self._left = -1
        self._held = b""

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            data = self._held + data
            end = data.find(wire.HEAD_END)
            if end < 0:
                self._held = data
                return
            length = _LENGTH.search(data, 0, end)
            if not data.startswith(b"HTTP/1.1 200"):
                self._fail(data)
                return
            if length is None:
                self._in_chunks(data, end)
                return
            self._left = end + 4 + int(length[1])
        self._left -= len(data)
        if self._left == 0:
            self._done()

    def _in_chunks(self, data: bytes, end: int) -> None:
        if _CHUNKED not in data[:end].lower():
            self._fail(data)
            return
        self._held = data
        if data.endswith(wire.STREAM_END):
            self._done()


class StreamAsker(_Asker):
    """Chunked answers; records when the first body byte arrives."""

    def _begin(self) -> None:
        self._tail = b""
        self._started = False

    def data_received(self, data: bytes) -> None:
        if not self._started:
            data = self._tail + data
            end = data.find(wire.HEAD_END)
            if end < 0 or len(data) == end + 4:
                self._tail = data
                return
            if not data.startswith(b"HTTP/1.1 200"):
                self._fail(data)
                return
            self._started = True
            self._tally.first.append(_clock() - self._asked_at)
        if len(data) < 5:
            data = self._tail + data
        self._tail = data[-5:]
        if self._tail == wire.STREAM_END:
            self._done()


@dataclass(frozen=True, slots=True)
class Load:
    """What to request, on how many connections, for how long. The first requests are
    spread over `stagger_s`. `rate`: requests a second of all connections; 0: as many as
    are answered."""

    connections: int
    seconds: float
    warm_s: float = 0.3
    streamed: bool = False
    paced: bool = False
    unique: bool = False  # each answer has ids of its own
    stagger_s: float = 0.0
    key: str = wire.KEY
    rate: float = 0.0


async def run(load: Load, port: int, between: Callable[[], None]) -> Tally:
    """Run the load against a port. `between` is called when the measured part begins
    and again when it ends; only that part is in the tally."""
    tally = Tally()
    askers = [await _connect(load, port, tally, i) for i in range(load.connections)]
    try:
        loop = asyncio.get_running_loop()
        for position, asker in enumerate(askers):
            loop.call_later(load.stagger_s * position / len(askers), asker.ask)
        await asyncio.sleep(load.warm_s + load.stagger_s)
        tally.whole.clear()
        tally.first.clear()
        between()
        await asyncio.sleep(load.seconds)
        between()
        measured = Tally(list(tally.whole), list(tally.first))
    finally:
        await _stop(askers)
    if tally.error:
        raise LoadError(f"port {port}: {tally.error}")
    return measured


async def complete(load: Load, port: int, count: int) -> int:
    """Read at least `count` answers, and all that were asked for. Returns how many
    there were."""
    tally = Tally()
    askers = [await _connect(load, port, tally, i) for i in range(load.connections)]
    for asker in askers:
        asker.ask()
    while len(tally.whole) < count and tally.error is None:  # noqa: ASYNC110 - a list
        await asyncio.sleep(0.01)
    for asker in askers:
        asker.stop()
    await asyncio.gather(*(asker.over for asker in askers))
    if tally.error:
        raise LoadError(f"port {port}: {tally.error}")
    return len(tally.whole)


async def _connect(load: Load, port: int, tally: Tally, number: int) -> _Asker:
    request = wire.request(
        f"127.0.0.1:{port}",
        f"bench-{number}",
        streamed=load.streamed,
        pace="slow" if load.paced else "unique" if load.unique else "none",
        key=load.key,
    )
    kind = StreamAsker if load.streamed else JsonAsker
    every_s = load.connections / load.rate if load.rate else 0.0
    loop = asyncio.get_running_loop()
    _, asker = await loop.create_connection(
        lambda: kind(itertools.repeat(request), tally, every_s), "127.0.0.1", port
    )
    return asker


async def _stop(askers: Sequence[_Asker]) -> None:
    for asker in askers:
        asker.stop()
    await asyncio.wait([asker.over for asker in askers], timeout=5)
