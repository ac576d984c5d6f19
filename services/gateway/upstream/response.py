"""An upstream's answer, while it comes: to whoever awaits it, or pushed into a sink."""

import asyncio
from typing import Protocol

from libs.common.contracts.events import Cause
from libs.common.headers import Header
from services.gateway.upstream.errors import UpstreamError

HIGH_WATER = 262_144  # bytes held for a slow reader before the socket rests
REST_S = 1.0  # for the end of an answer that nobody reads any more


class NoKey(UpstreamError):
    """this gateway cannot resolve its key"""

    cause = Cause.NO_KEY
    is_ours = True


class Broken(UpstreamError):
    """The connection ended, or spoke no HTTP, before an answer's head."""

    # A kept connection that had served before: it may just have been closed
    # for idleness, which says nothing of the upstream.
    reused = False


class TimedOut(UpstreamError):
    """The request's time is up."""

    cause = Cause.TIMEOUT
    ends_request = True


class Slow(UpstreamError):
    """The upstream was silent for too long; the request has time left."""

    cause = Cause.TIMEOUT


class Interrupted(UpstreamError):
    """The answer ended in the middle of its body."""


class Sink(Protocol):
    """Takes an answer's body as it comes. Called from the connection: it may not
    wait, and raises nothing."""

    def feed(self, data: bytes, *, last: bool) -> None: ...

    def fail(self, error: UpstreamError) -> None: ...


class Source(Protocol):
    """The connection an answer comes by."""

    loop: asyncio.AbstractEventLoop

    def rest(self) -> None: ...

    def read_on(self) -> None: ...

    def abort(self) -> None: ...

    def end_within(self, seconds: float) -> None: ...


class Answer:
    """An answer under way: its head, then its body: piece by piece to whoever
    awaits `next`, or pushed into a sink, which costs no task a turn of the loop.

    It lets go of its connection when the body ends, for the connection then
    serves somebody else.
    """

    __slots__ = ("_chunks", "_connection", "_error", "_held", "_sink", "_wake",
                 "headers", "status")  # fmt: skip

    def __init__(self, connection: Source, status: int, headers: list[Header]) -> None:
        self._connection: Source | None = connection
        self._chunks: list[bytes] = []
        self._held = 0
        self._error: UpstreamError | None = None
        self._wake: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self.status = status
        self.headers = headers

    async def next(self) -> bytes:
        """The bytes that arrived since the last call; empty at the end. Raises
        `Interrupted` or `TimedOut`."""
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._connection is None:
                return b""
            self._wake = self._connection.loop.create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        return self._take()

    def flow_into(self, sink: Sink) -> None:
        """Push what there is, and what comes, into `sink`: until its `last` piece or
        its failure, of which there is exactly one."""
        self._sink = sink
        if self._chunks:
            ends = self._connection is None and self._error is None
            if ends:
                self._sink = None
            sink.feed(self._take(), last=ends)
            if ends:
                return
        if self._connection is None:
            self._sink = None
            if self._error is not None:
                sink.fail(self._error)
            else:
                sink.feed(b"", last=True)

    def pause(self) -> None:
        """The sink has enough for now."""
        if self._connection is not None:
            self._connection.rest()

    def resume(self) -> None:
        """The sink takes more."""
        if self._connection is not None:
            self._connection.read_on()

    @property
    def ended(self) -> bool:
        """Nothing will arrive beyond what `next` gave."""
        return self._connection is None and self._error is None and not self._chunks

    @property
    def waiting(self) -> bool:
        """Would `next` return at once?"""
        return bool(self._chunks) or self._connection is None

    def close(self) -> None:
        """Give up what has not arrived; after the end this does nothing."""
        self._sink = None
        if self._connection is not None:
            self._connection.abort()

    def finish_alone(self) -> None:
        """All that matters has arrived, and nobody listens any more: let the rest
        come, for a moment, so that the connection serves the next request."""
        self._sink = _NOBODY
        if self._connection is not None:
            self._connection.end_within(REST_S)

    def _take(self) -> bytes:
        chunks, self._chunks, self._held = self._chunks, [], 0
        if self._connection is not None:
            self._connection.read_on()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    # The connection's side ---------------------------------------------------

    def feed(self, data: bytes, *, last: bool) -> None:
        """What one read of the socket brought."""
        if last:
            self._connection = None
        sink = self._sink
        if sink is not None:
            if last:
                self._sink = None  # it knows us
            sink.feed(data, last=last)
            return
        if data:
            self._chunks.append(data)
            self._held += len(data)
            if self._held > HIGH_WATER and self._connection is not None:
                self._connection.rest()
        self._stir()

    def fail(self, error: UpstreamError) -> None:
        """The body ended before it should."""
        self._connection = None
        self._error = error
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(error)
        self._stir()

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


class _Nobody:
    """A sink for what nobody reads."""

    def feed(self, data: bytes, *, last: bool) -> None:
        pass

    def fail(self, error: UpstreamError) -> None:
        pass


_NOBODY = _Nobody()
