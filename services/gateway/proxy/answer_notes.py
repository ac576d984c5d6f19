"""What is noted of an answer while it passes: its facts, its end, its first token."""

import time
from collections.abc import Callable, Iterator
from typing import Final

from libs.common.bodies.hints import LARGEST_QUICK
from libs.common.headers import Header, kinds
from libs.common.providers.key_echoes import SentKey
from services.gateway.capture.capture import Capture
from services.gateway.content.coding import opener
from services.gateway.content.failed_event import failed_event
from services.gateway.content.key_masking import hide
from services.gateway.content.response_facts import (
    Facts,
    LargeAnswer,
    read_answer,
    read_beginning,
)
from services.gateway.content.sse import EventTap
from services.gateway.proxy.outcome import Relayed

LARGEST_READ: Final = 8_388_608  # bytes of a JSON answer kept for its facts
LARGEST_BEGINNING = 4096  # bytes kept of a larger one
LOOK = 16_384  # bytes of a stream read in one step
QUICK_STEPS = 2  # of a compressed piece, that are taken at once
_DONE: Final = object()


class AnswerNotes(Relayed):
    """Notes for one answer. `Relay` extends it, so that an answer takes one object."""

    # Most answers never set these. As class attributes they cost nothing.
    bytes_out = 0
    torn = False  # the upstream ended before its answer did
    _kept_bytes = 0
    _told: str | None = None  # why it was cut, as the client or the ledger is told
    _large: Facts | None = None  # of an answer that was read in steps

    def __init__(
        self, headers: list[Header], capture: Capture | None, sent: SentKey
    ) -> None:
        what = kinds(headers)
        self._capture, self._sent = capture, sent
        if capture is not None:
            capture.response_kinds, capture.sent = what, sent
        content_type, coding = what[0] or b"", what[1]
        # Two searches take ten times as long as this comparison.
        if content_type == b"application/json":
            self.streams, self._json = False, True
        else:
            self.streams = content_type.startswith(b"text/event-stream")
            self._json = content_type.find(b"json") >= 0
        self._tap = EventTap() if self.streams else None
        self._kept: list[bytes] = []
        self._open = opener(coding) if coding else None
        # Not class attributes, because each piece of a stream reads them.
        self.first_token_at: float | None = None  # perf_counter seconds
        # Called with the event that names the response, as soon as it passed.
        self.on_created: Callable[[bytes], None] | None = None

    @property
    def terminal(self) -> str | None:
        """How a stream said that its response ended, if it did."""
        return self._tap.terminal if self._tap else None

    def facts(self) -> Facts:
        """The facts of the answer; complete once it was read."""
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
        """The id of an answer that was cut, or is too large."""
        if not self._kept:
            return Facts()
        return read_beginning(b"".join(self._kept[:8]))

    def _lacks_end(self) -> bool:
        tap = self._tap
        return tap is not None and tap.speaks_responses and tap.terminal is None

    def _blind(self) -> bool:
        """Is what a packed stream says unknown from some point on?"""
        return self._open is not None and self._open.broken

    def _failed_event(self, message: str) -> bytes:
        """A well-formed `response.failed`: clients retry on it, while silence
        or a mere cut leaves some of them waiting."""
        assert self._tap is not None
        self._told, self.torn = message, True
        events = failed_event(self._tap.created, self._tap.events, message)
        if self._tap.mid_event:
            events = b"\n\n" + events
        if self._capture is not None:
            self._capture.keep(events)
        return events

    def _note(self, chunk: bytes, *, last: bool) -> Iterator[None] | None:
        """Read a piece. Returns steps for what takes longer."""
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
        """Steps for what takes long to read and has come whole."""
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
            # A part of it holds its id, and no more is needed.
            self._kept = [b"".join(self._kept[:8])[:LARGEST_BEGINNING]]
