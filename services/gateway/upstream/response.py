"""An upstream's response while it arrives: awaited, or pushed into a sink."""

import asyncio
from typing import Final, Protocol

from libs.common.headers import Header
from services.gateway.upstream.errors import UpstreamError

HIGH_WATER: Final = 262_144  # bytes held for a slow reader; then nothing is read
REST_S = 1.0  # for the end of a response that nobody reads any more
_BLANK_LINE: Final = b"\r\n\r\n"
# Shared by responses that hold nothing; never changed.
_NOTHING: Final[list[bytes]] = []


class Sink(Protocol):
    """Takes a response's body as it arrives. The connection calls it: it must not
    block or raise. A class that names this as its base is called directly."""

    def feed(self, data: bytes, *, last: bool) -> None: ...

    def fail(self, error: UpstreamError) -> None: ...


class Source(Protocol):
    """The connection that a response arrives on."""

    loop: asyncio.AbstractEventLoop

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...

    def end_within(self, seconds: float) -> None: ...


class Answer:
    """A response: status and headers, then its body. Whoever awaits `next` gets the
    body piece by piece; a sink gets it pushed, without a turn of the event loop.

    The response drops its connection when the body ends: that then serves another
    request.
    """

    __slots__ = ("_chunks", "_connection", "_error", "_held", "_sink", "_wake",
                 "headers", "status")  # fmt: skip

    def __init__(self, connection: Source, status: int, headers: list[Header]) -> None:
        self._connection: Source | None = connection
        self._chunks = _NOTHING
        self._held = 0  # bytes
        self._error: UpstreamError | None = None
        self._wake: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self.status = status
        self.headers = headers

    async def next(self) -> bytes:
        """The bytes that arrived since the last call; empty at the end. Raises
        `Interrupted`, `Slow` or `TimedOut`."""
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
        """Push what arrived and what arrives into `sink`. Its last call is `feed` with
        `last` or `fail`, exactly once."""
        if self._connection is None and self._error is None:
            sink.feed(self._take() if self._chunks else b"", last=True)
            return
        self._sink = sink
        if self._chunks:
            sink.feed(self._take(), last=False)
        if self._error is not None and self._sink is not None:
            self._sink = None
            sink.fail(self._error)

    def whole(self) -> bytes | None:
        """The body, if it came in one piece, and whole. Takes it."""
        if self._connection is not None or self._error is not None:
            return None
        chunks = self._chunks
        if len(chunks) != 1:
            return None
        self._chunks = _NOTHING
        return chunks[0]

    def pause(self) -> None:
        """The sink takes no more for now."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        """The sink takes more."""
        if self._connection is not None:
            self._connection.resume_reading()

    @property
    def chunked(self) -> bool:
        """Does it end with a last chunk?"""
        for name, _ in self.headers:  # noqa: SIM110 - any() takes three times as long
            if name == b"transfer-encoding":
                return True
        return False

    @property
    def ended(self) -> bool:
        """Whether nothing will arrive beyond what `next` returned."""
        return self._connection is None and self._error is None and not self._chunks

    @property
    def waiting(self) -> bool:
        """Whether `next` would return at once."""
        return bool(self._chunks) or self._connection is None

    def close(self) -> None:
        """Give up what has not arrived. Does nothing after the end."""
        self._sink = None
        if self._connection is not None:
            self._connection.abort()

    def finish_alone(self) -> None:
        """The reader needs no more: read the rest for a moment, so that the connection
        can serve the next request."""
        self._sink = _DISCARD
        if self._connection is not None:
            self._connection.end_within(REST_S)

    def _take(self) -> bytes:
        chunks, self._chunks, self._held = self._chunks, _NOTHING, 0
        if self._connection is not None:
            self._connection.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    # Called by the connection --------------------------------------------------

    def feed(self, data: bytes, *, last: bool) -> None:
        """What one read of the socket brought."""
        sink = self._sink
        if last:
            self._connection = self._sink = None  # both refer to us
        if sink is not None:
            sink.feed(data, last=last)
            return
        if data:
            self._hold(data)
        if self._wake is not None:
            self._wake_reader()

    def _hold(self, data: bytes) -> None:
        if self._chunks:
            self._chunks.append(data)
        else:
            self._chunks = [data]
        self._held += len(data)
        if self._held > HIGH_WATER and self._connection is not None:
            self._connection.pause_reading()

    def fail(self, error: UpstreamError) -> None:
        """The body ended too early."""
        self._connection = None
        self._error = error
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(error)
        if self._wake is not None:
            self._wake_reader()

    def _wake_reader(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def overran(data: bytes, last: bytes, answer: Answer | None) -> bool:
    """Whether line breaks follow the response that ended in the read `data`. llhttp
    skips them silently, as it does in front of a status line. `last`: the last piece of
    the body in that read, or empty."""
    if not last or (answer and answer.chunked):  # it ends with an empty line
        return not _BLANK_LINE.endswith(data[-4:]) or data.endswith(b"\n" + _BLANK_LINE)
    length = len(last)
    # In front of a body is the end of the head, or it came with an earlier read.
    # (Line breaks behind a body of line breaks are not seen. They do no harm.)
    return not _BLANK_LINE.endswith(data[-length - 4 : -length])


class _Discard:
    """A sink for what nobody reads."""

    def feed(self, data: bytes, *, last: bool) -> None:
        pass

    def fail(self, error: UpstreamError) -> None:
        pass


_DISCARD = _Discard()
