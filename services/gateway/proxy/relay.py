"""Relays one answer to its client: pieces as they come, facts noted in passing. An
upstream that breaks off is reported to the client, never passed over in silence. A
client that leaves ends the task of its request: `_given_up` in exchange.py."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from libs.common.bodies.hints import LARGEST_QUICK
from libs.common.headers import Header, find
from libs.common.providers.key_echoes import NO_KEY, SentKey
from services.gateway.capture.capture import Capture
from services.gateway.content.headers import OURS, without_limit_lines
from services.gateway.proxy.answer_notes import AnswerNotes
from services.gateway.server.connection import Connection
from services.gateway.upstream.client import Answer, Slow, TimedOut, UpstreamError
from services.gateway.upstream.response import Sink

COMMENT = b": keepalive\n\n"
_OURS: Final = b"\n" + OURS
# `_parts(data, key)[1]`: is it there? Sooner than `find`, and `in` on CPython 3.11.
_parts: Final = bytes.partition


class Torn(Exception):
    """The answer was cut after its head went out; the connection must break,
    so that the client does not take the part for the whole."""


async def at_once(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


class Relay(AnswerNotes, Sink):
    """Relays one answer. The upstream's connection pushes the pieces, so that a piece
    costs no turn of the event loop.

    `start` goes on until all is known of the answer. Its last bytes wait for `finish`,
    which the caller calls after the settlement: what the client asks next may build on
    the answer. A stream may go on behind its terminal event: `rest` awaits that.

    Also after it raised: `status`, `bytes_out`, `terminal`, `facts`, and
    `first_token_at` (perf_counter seconds).
    """

    # Most answers never set these. As class attributes they cost nothing.
    limits_in: Sequence[Header] = ()  # its headers, if they name limits of the account
    _head = b""  # until it is sent
    _wake: asyncio.Future[None] | None = None
    over = False  # nothing more will come
    _tail_ends = False  # it is the answer's end
    _failure: Exception | None = None
    _reading: asyncio.Task[None] | None = None
    _heard_bytes = -1  # `bytes_out` at the last keepalive

    def __init__(
        self,
        answer: Answer,
        connection: Connection,
        capture: Capture | None = None,
        sent: SentKey = NO_KEY,
        run: Callable[[Iterator[None]], Awaitable[None]] = at_once,
    ) -> None:
        """`sent` is the key that the upstream got: the client must not see it. `run`
        takes steps, and lets others run in between."""
        self._answer = answer
        self._connection, self._writer = connection, connection.writer
        self._run = run
        self.status = answer.status
        # `super()` would make an object.
        AnswerNotes.__init__(self, answer.headers, capture, sent)
        # Not class attributes, because each piece reads them.
        self._known = False  # all is known of the answer
        self._tail: bytes | None = None  # waits for `finish`
        # The end of a piece that may be the beginning of the upstream's key.
        self._held = b""
        self._behind: list[Callable[[], None]] | None = None  # wait for a piece

    def start(  # noqa: C901 - a further call costs each request
        self, ours: bytes, limits: bytes | None = None
    ) -> Awaitable[None] | None:
        """Send all but the last bytes, with the header lines `ours`; what is returned
        has to be awaited. None: all is known of the answer, as of most that are no
        streams. `limits`: the lines that replace those of the account's limits. Raises
        `Torn` when the upstream broke off and the client cannot be told in the
        stream."""
        answer, connection = self._answer, self._connection
        lines = ours + limits if limits else ours
        head = self._writer.begin(answer.status, answer.headers, lines)
        if self._writer.limited:
            self.limits_in = answer.headers
            if limits is not None:
                place = head.find(_OURS) + 1  # ours are behind those of the upstream
                head = without_limit_lines(head[:place]) + head[place:]
        self._head = head
        sent = self._sent
        key = sent.streamed
        if key and sent.rare in head and _parts(head, key)[1]:
            self._head = sent.masked(head)
        if self.streams and not answer.waiting:
            self._send(b"", last=False)  # the head does not wait for an event
        data = answer.whole() if self._tap is None and self._open is None else None
        if data is not None and len(data) <= LARGEST_QUICK:
            if key and sent.rare in data and _parts(data, key)[1]:
                data = sent.masked(data)
            self._take_whole(data)
            return None
        connection.on_drain = answer.resume
        if data is None:
            answer.flow_into(self)
        else:
            self.feed(data, last=True)
        if self._known:
            self._raise_failure()
            return None
        self._wake = connection.loop.create_future()
        return self._heard(self._wake)

    async def _heard(self, wake: asyncio.Future[None]) -> None:
        try:
            await wake
        finally:
            if self._reading is not None and not self._known:
                self._reading.cancel()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    @property
    def unsent(self) -> bool:
        """Has nothing of the answer been sent?"""
        return self._head != b""

    @property
    def whole(self) -> bool:
        """Has the answer ended, without a failure?"""
        return self.over and self._failure is None

    def add_line(self, line: bytes) -> None:
        """Add a line to the head, which was not sent yet."""
        self._head = self._head[:-2] + line + b"\r\n"

    def finish(self) -> bool:
        """Send the bytes that waited for the settlement. Returns whether more may
        follow: then await `rest`."""
        tail = self._tail
        if tail is not None:
            self._tail = None
            self._send(tail, last=self._tail_ends)
        return self._known and not self.over

    async def rest(self) -> None:
        """Relay what follows the terminal event of a stream. Raises `Torn`."""
        if not self.over:
            self._wake = self._connection.loop.create_future()
            try:
                await self._wake
            finally:
                if self._reading is not None:
                    self._reading.cancel()
        self._raise_failure()

    def close(self) -> None:
        """Let go of the upstream. After the terminal event its connection may still
        become reusable."""
        tap = self._tap
        if tap is None or tap.terminal is None:
            self._answer.close()
        else:
            self._answer.finish_alone()

    def keep_alive(self) -> None:
        """Send a comment if nothing was relayed since the last call. Comments stand
        between events of a plain stream (WHATWG HTML section 9.2.5)."""
        before, self._heard_bytes = self._heard_bytes, self.bytes_out
        if before == self.bytes_out and self._may_comment():
            self._writer.send(b"", COMMENT, last=False)

    def _may_comment(self) -> bool:
        tap = self._tap
        if tap is None or tap.mid_event or self._open is not None:
            return False
        waits = self._head or self._held or self._behind is not None
        if waits or self._tail is not None or self.over or self._connection.paused:
            return False
        return find(self._answer.headers, b"content-length") is None

    # The answer's side -------------------------------------------------------

    def feed(self, data: bytes, *, last: bool) -> None:
        """Pass a piece on."""
        if self._behind is not None:
            self._behind.append(partial(self.feed, data, last=last))
            self._answer.pause()
            return
        try:
            if data or self._held:
                sent = self._sent
                key = sent.streamed
                if key and (
                    self._held
                    or data[-1] in sent.bytes
                    or (sent.rare in data and _parts(data, key)[1])
                ):
                    data = self._masked(data, last=last)
            # The first piece of a plain answer that is no stream?
            first = self._tap is None and self._open is None and not self.bytes_out
            if last and first and len(data) <= LARGEST_QUICK:
                self._take_whole(data)
                return
            steps = self._note(data, last=last) if data or last else None
            if steps is None:
                self._pass(data, last=last)
            else:
                self._behind = []
                later = self._read_on(steps, data, last=last)
                self._reading = self._connection.loop.create_task(later)
        except Exception as error:  # noqa: BLE001 - it is raised where it belongs
            self._end(error)

    def _take_whole(self, data: bytes) -> None:
        """A plain answer in one piece, as most that are no streams: like the steps of
        others, with fewer calls."""
        self.bytes_out = self._kept_bytes = len(data)
        if self._capture is not None:
            self._capture.keep(data)
        if self._json and data:
            self._kept.append(data)
        self._tail, self._tail_ends = data, True
        self._known = self.over = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _pass(self, data: bytes, *, last: bool) -> None:
        if last:
            self._end_with(data)
            return
        tap = self._tap
        if not self._known and tap is not None and tap.terminal is not None:
            # Only its terminal event tells how a stream ends.
            self._tail, self._known = data, True
            self._stir()
            return
        self._send(data, last=False)
        if self._connection.paused:
            self._answer.pause()

    async def _read_on(self, steps: Iterator[None], data: bytes, *, last: bool) -> None:
        """Of a piece that takes long to read: it is passed on when all is known of it,
        and so are those behind it."""
        try:
            await self._run(steps)
            self._pass(data, last=last)
        except Exception as error:  # noqa: BLE001 - it is raised where it belongs
            self._end(error)
        behind, self._behind = self._behind or [], None
        for take in behind:
            take()
        if behind and not self.over and not self._connection.paused:
            self._answer.resume()

    def fail(self, error: UpstreamError) -> None:
        """The upstream broke off."""
        if self._behind is not None:
            self._behind.append(partial(self.fail, error))
            return
        slow = isinstance(error, TimedOut | Slow)
        try:
            self.cut(f"The upstream {'took too long' if slow else 'broke off'}.")
        except Exception as failure:  # noqa: BLE001 - it is raised where it belongs
            self._end(failure)

    def interrupt(self, cause: str) -> None:
        """End the answer where it is: the gateway stops."""
        if self.over:
            return
        with suppress(Torn):
            self.cut(cause)

    def cut(self, cause: str) -> None:
        """End the answer where it is, and tell the client. Raises `Torn` when it
        cannot be told in the stream."""
        # After its terminal event a response is what that event says.
        self.torn = self.torn or not self._known
        if not self._can_tell():
            if not self._known:
                self._told = cause  # the ledger is, if not the client
            raise Torn(cause)
        data = b""
        if self._lacks_end() or not self.bytes_out:
            data = self._failed_event(cause)
        self._conclude(data)

    def _masked(self, data: bytes, *, last: bool) -> bytes:
        """A piece without the key. What may be the beginning of one waits for the
        next piece."""
        data, self._held = self._sent.masked(self._held + data), b""
        # Of a packed stream every byte may complete an event.
        packed = self._open is not None
        begun = 0 if last or packed else self._sent.begun(data)
        if begun:
            data, self._held = data[:-begun], data[-begun:]
        return data

    def _end_with(self, data: bytes) -> None:
        if self._lacks_end() and not self._blind():
            cause = "The upstream's stream ended early."
            if not self._can_tell():
                self.torn = True
                self._send(data, last=False)
                raise Torn(cause)
            data += self._failed_event(cause)
        self._conclude(data)

    def _conclude(self, data: bytes) -> None:
        """The answer ends with `data`."""
        if self._known:
            self._send(data, last=True)
        else:
            self._tail, self._tail_ends = data, True
        self._end()

    def _send(self, data: bytes, *, last: bool) -> None:
        if self._tail is not None:  # it waits for the settlement
            self._tail += data
            self._tail_ends = last
            return
        head, self._head = self._head, b""
        self._writer.send(head, data, last=last)

    def _end(self, failure: Exception | None = None) -> None:
        self._known = self.over = True
        self._failure = failure
        self._stir()

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _can_tell(self) -> bool:
        """Only a plain stream of the Responses API can take an event of ours."""
        tap = self._tap
        if tap is None or self._open is not None:
            return False
        return tap.speaks_responses or not self.bytes_out
