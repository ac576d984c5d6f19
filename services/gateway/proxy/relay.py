"""Relays one answer to its client: pieces as they come, facts noted in passing. An
upstream that breaks off is reported to the client, never passed over in silence."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from libs.common.bodies.hints import LARGEST_QUICK
from libs.common.headers import kinds
from libs.common.providers.key_echoes import NO_KEY, SentKey
from services.gateway.capture.recorder import Capture
from services.gateway.content.coding import opener
from services.gateway.content.key_masking import hide
from services.gateway.content.response_facts import (
    Facts,
    LargeAnswer,
    read_answer,
    read_beginning,
)
from services.gateway.content.sse import EventTap
from services.gateway.server.connection import Connection
from services.gateway.upstream.client import Answer, Slow, TimedOut, UpstreamError

# A response that ended before the upstream named it, with every field that SDKs
# require (docs/upstream-api.md).
_UNBORN: dict[str, Any] = {
    "id": "resp_unknown",
    "object": "response",
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "unknown",
    "output": [],
    "parallel_tool_calls": True,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_p": None,
    "usage": None,
}
LARGEST_BEGINNING = 4096  # bytes of a larger one
LOOK = 16_384  # bytes of a stream looked at in one step
QUICK_STEPS = 2  # of a packed piece, that are taken at once
_DONE = object()
LARGEST_READ = 8_388_608  # bytes of a JSON answer kept for its facts


class Torn(Exception):
    """The answer was cut after its head went out; the connection must break,
    so that the client does not take the part for the whole."""


async def at_once(steps: Iterator[None]) -> None:
    for _ in steps:
        pass


class Relay:
    """Relays one answer. The upstream's connection pushes the pieces, so that a piece
    costs no turn of the event loop.

    `run` returns when all is known of the answer. Its last bytes wait for `finish`,
    which the caller calls after the settlement: what the client asks next may build on
    the answer. A stream may go on behind its terminal event: `rest` awaits that.

    Also after `run` raised: `status`, `bytes_out`, `terminal`, `facts`, and
    `first_token_at` (perf_counter seconds).
    """

    # Most answers never set these. As class attributes they cost nothing.
    bytes_out = 0
    first_token_at: float | None = None
    # Called with the event that names the response, as soon as it passed.
    on_created: Callable[[bytes], None] | None = None
    torn = False  # the upstream ended before its answer did
    _head = b""  # until it is sent
    _wake: asyncio.Future[None] | None = None
    over = False  # nothing more will come
    _known = False  # all is known of the answer
    _tail: bytes | None = None  # waits for `finish`
    _tail_ends = False  # it is the answer's end
    _failure: Exception | None = None
    _kept_bytes = 0
    _told: str | None = None  # what the client or the ledger is told about that
    _held = b""  # the end of a piece that may be the beginning of the upstream's key
    _large: Facts | None = None  # of an answer that was read in steps
    _behind: list[Callable[[], None]] | None = None  # pieces that wait for one
    _reading: asyncio.Task[None] | None = None

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
        self._connection = connection
        self._capture = capture
        self._run = run
        self.status = answer.status
        what = kinds(answer.headers)
        self._sent = sent
        if capture is not None:
            capture.response_kinds, capture.sent = what, sent
        content_type, coding = what[0] or b"", what[1]
        self.streams = content_type.startswith(b"text/event-stream")
        self._tap = EventTap() if self.streams else None
        self._json = b"json" in content_type
        self._kept: list[bytes] = []
        self._open = opener(coding)

    @property
    def _comes_whole(self) -> bool:
        """Is this piece the first of a plain answer that is no stream?"""
        return self._tap is None and self._open is None and not self.bytes_out

    async def run(self, ours: bytes) -> None:
        """Send all but the last bytes, with the header lines `ours`. Raises `Torn` when
        the upstream broke off and the client cannot be told in the stream."""
        answer, connection = self._answer, self._connection
        self._head = head = connection.begin(answer.status, answer.headers, ours)
        if self._sent.streamed and self._sent.streamed in head:
            self._head = self._sent.masked(head)
        if self.streams and not answer.waiting:
            self._send(b"", last=False)  # the head does not wait for an event
        connection.on_drain = answer.resume
        answer.flow_into(self)
        if not self._known:
            self._wake = connection.loop.create_future()
            try:
                await self._wake
            finally:
                if self._reading is not None and not self._known:
                    self._reading.cancel()
        if self._failure is not None:
            raise self._failure

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
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Let go of the upstream. After the terminal event its connection may still
        become reusable."""
        if self.terminal is None:
            self._answer.close()
        else:
            self._answer.finish_alone()

    # The answer's side -------------------------------------------------------

    def feed(self, data: bytes, *, last: bool) -> None:
        """Pass a piece on."""
        if self._behind is not None:
            self._behind.append(partial(self.feed, data, last=last))
            self._answer.pause()
            return
        try:
            if data or self._held:
                key = self._sent.streamed
                if key and (self._held or data[-1] in self._sent.bytes or key in data):
                    data = self._masked(data, last=last)
            if last and self._comes_whole and len(data) <= LARGEST_QUICK:
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
        if not self._known and self.terminal is not None:
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
        with suppress(Torn):
            self.cut(cause)

    def cut(self, cause: str) -> None:
        """End the answer where it is, and tell the client. Raises `Torn` when it
        cannot be told in the stream."""
        self.torn = True
        if not self._can_tell():
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
        self._connection.send(head, data, last=last)

    def _end(self, failure: Exception | None = None) -> None:
        self._known = self.over = True
        self._failure = failure
        self._stir()

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    @property
    def terminal(self) -> str | None:
        """How a stream said that its response ended, if it did."""
        return self._tap.terminal if self._tap else None

    def facts(self) -> Facts:
        """What the answer told of itself; complete once it was read."""
        if self._tap is None:
            facts = self._large
            if facts is None:
                small = 0 < self._kept_bytes <= LARGEST_QUICK
                facts = read_answer(b"".join(self._kept)) if small else self._begun()
        else:
            facts = self._tap.facts
            facts.response_id = facts.response_id or self._tap.response_id
            facts.model = facts.model or self._tap.model
        if self._told is not None:
            facts.error_code, facts.error_message = "server_error", self._told
        hide(facts, self._sent)
        return facts

    def _begun(self) -> Facts:
        """Of an answer that was cut, or is too large: its id alone."""
        if not self._kept:
            return Facts()
        return read_beginning(b"".join(self._kept[:8]))

    def _lacks_end(self) -> bool:
        tap = self._tap
        return tap is not None and tap.speaks_responses and tap.terminal is None

    def _note(self, chunk: bytes, *, last: bool) -> Iterator[None] | None:
        """Look at a piece. What is left to look at is given back, in steps."""
        if chunk:
            self.bytes_out += len(chunk)
            if self._capture is not None:
                self._capture.keep(chunk)
        if self._open is None and len(chunk) <= LARGEST_QUICK:
            if chunk:
                self._look(chunk)
            tap = self._tap
            large = last and self._kept_bytes > LARGEST_QUICK
            return self._unread(last=last) if large or (tap and tap.unread) else None
        steps = self._look_on(chunk, last=last)
        for _ in range(QUICK_STEPS):
            if next(steps, _DONE) is _DONE:
                return None
        return steps

    def _look(self, chunk: bytes) -> None:
        if self._tap is not None:
            self._tap.feed(chunk)
            if self.on_created is not None and self._tap.created:
                self.on_created(self._tap.created)
                self.on_created = None
            if self.first_token_at is None and self._tap.saw_token:
                self.first_token_at = time.perf_counter()
        elif self._json:
            self._keep(chunk)

    def _look_on(self, chunk: bytes, *, last: bool) -> Iterator[None]:
        pieces = (chunk,) if self._open is None else self._open.pieces(chunk)
        for piece in pieces:
            for start in range(0, len(piece), LOOK):
                self._look(piece[start : start + LOOK])
                yield
        yield from self._unread(last=last) or ()

    def _unread(self, *, last: bool) -> Iterator[None] | None:
        """What takes long to read and has come as a whole."""
        tap = self._tap
        if tap is not None:
            return self._read_event(tap) if tap.unread else None
        large = last and LARGEST_QUICK < self._kept_bytes <= LARGEST_READ
        return self._read_answer() if large else None

    def _read_event(self, tap: EventTap) -> Iterator[None]:
        event, tap.unread = LargeAnswer(tap.unread, event=True), b""
        yield from event.steps()
        tap.facts = event.facts

    def _read_answer(self) -> Iterator[None]:
        answer = LargeAnswer(b"".join(self._kept))
        yield from answer.steps()
        self._large = answer.facts

    def _keep(self, chunk: bytes) -> None:
        self._kept_bytes += len(chunk)
        if self._kept_bytes <= LARGEST_READ:
            self._kept.append(chunk)
        else:
            # A part of it tells its id, and no more.
            self._kept = [b"".join(self._kept[:8])[:LARGEST_BEGINNING]]

    def _blind(self) -> bool:
        """Is what a packed stream says unknown from some point on?"""
        return self._open is not None and self._open.broken

    def _can_tell(self) -> bool:
        """Only a plain stream of the Responses API can take an event of ours."""
        tap = self._tap
        if tap is None or self._open is not None:
            return False
        return tap.speaks_responses or not self.bytes_out

    def _failed_event(self, message: str) -> bytes:
        """A well-formed `response.failed`: clients retry on it, while silence
        or a mere cut leaves some of them waiting."""
        assert self._tap is not None
        self._told, self.torn = message, True
        events = death_notice(self._tap.created, self._tap.events, message)
        if self._tap.mid_event:
            events = b"\n\n" + events
        if self._capture is not None:
            self._capture.keep(events)
        return events


def death_notice(created: bytes, sequence: int, message: str) -> bytes:
    """The frame of a `response.failed` for the response of a `response.created`
    event's JSON. Without one, that event goes first: clients expect it."""
    response = _response_of(created)
    failed = response | {
        "status": "failed",
        "error": {"code": "server_error", "message": message},
        "usage": None,
    }
    if created:
        return _frame("response.failed", sequence, failed)
    begun = _frame("response.created", sequence, response)
    return begun + _frame("response.failed", sequence + 1, failed)


def _response_of(created: bytes) -> dict[str, Any]:
    try:
        return dict(msgspec.json.decode(created)["response"])
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
        return dict(_UNBORN) | {"created_at": int(time.time())}


def _frame(kind: str, sequence: int, response: dict[str, Any]) -> bytes:
    event = {"type": kind, "sequence_number": sequence, "response": response}
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(event))
