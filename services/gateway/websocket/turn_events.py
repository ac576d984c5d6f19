"""What an upstream's events say of the turns of a socket. Reads no more of them than
that takes."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from libs.common.bodies.hints import LARGEST_QUICK
from libs.common.headers import Kinds
from libs.common.upstream_answers.verdicts import Verdict, of_failed_response
from services.gateway.content.body_reader import Reader
from services.gateway.content.key_masking import hide
from services.gateway.content.response_facts import Facts, LargeAnswer, read_event
from services.gateway.proxy.failures import utc_now
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.steps import ACQUIRE, REWRITE
from services.gateway.upstream.errors import Broken
from services.gateway.websocket.failures import failure_of
from services.gateway.websocket.frames import (
    TERMINAL,
    Head,
    Message,
    head_of,
    is_beginning,
    is_shown,
    of_error,
)
from services.gateway.websocket.turn_types import Turn
from services.gateway.websocket.upstream import Opened

log = structlog.get_logger()

# Events of a turn that are held at once. Usually there are two or three; without a
# bound an upstream could fill the memory before they are released.
MOST_HELD = 16
# Events of a socket as they are captured: one a line.
LINES: Kinds = (b"application/jsonl", None)


class Noted(NamedTuple):
    """What becomes of an event, which passes if there is no `turn`. `first`: events
    that were held and pass before it."""

    first: Sequence[Message] = ()
    turn: Turn | None = None  # the client must not see the event
    holds: bool = False  # it is held; else the turn failed and goes elsewhere


PASSES = Noted()


class TurnEvents:
    """Reads events, and ends the turns that they end."""

    def __init__(
        self,
        running: list[Turn],
        in_flight: InFlight,
        reader: Reader,
        settle: Callable[[Turn], None],
        *,
        replays: bool,
    ) -> None:
        """`replays`: rewrite turns for another account when theirs is gone."""
        self._running = running
        self._in_flight = in_flight
        self._reader = reader
        self._settle = settle
        self._replays = replays

    def note(self, upstream: Opened, frame: Message) -> Noted | Awaitable[Noted]:
        """Note what an event says. Never raises: events pass, whatever they say. A
        large one has to be awaited."""
        event = frame.encode() if isinstance(frame, str) else frame
        if len(event) > LARGEST_QUICK:
            return self._note_large(upstream, event)
        try:
            return self._note(upstream, frame, event, head_of(event))
        except Exception:
            log.exception("event not understood", action="odd_answer")
        return PASSES

    async def _note_large(self, upstream: Opened, event: bytes) -> Noted:
        try:
            large = LargeAnswer(event, event=True)
            await self._reader.run(large.steps())
            head = Head(large.type, large.lane)
            turn = self._turn(upstream, head.lane)
            if turn is not None:
                held = self.released(turn)
                self._passes(turn, event, head, large.facts)
                return Noted(held)
        except Exception:
            log.exception("event not understood", action="odd_answer")
        return PASSES

    def _note(
        self, upstream: Opened, frame: Message, event: bytes, head: Head
    ) -> Noted:
        turn = self._turn(upstream, head.lane)
        if turn is None:
            return PASSES
        facts, terminal = None, TERMINAL.get(head.type or "")
        if terminal is None and _is_held(turn, head):
            self._hold(turn, frame, event, head)
            return Noted(turn=turn, holds=True)
        if terminal in ("error", "failed"):
            facts = read_event(event)[1]
            hide(facts, upstream.target.sent)
            if self._is_retried(turn, terminal, event, facts):
                return Noted(turn=turn)
        held = self.released(turn)
        self._passes(turn, event, head, facts)
        return Noted(held) if held else PASSES

    def _hold(self, turn: Turn, frame: Message, event: bytes, head: Head) -> None:
        """The client gets it with the first output: until then another resource may
        serve the turn."""
        turn.held.append(frame)
        self._heard(turn)
        if head.type == "response.created":
            turn.created = event

    def released(self, turn: Turn) -> list[Message]:
        """The events of a turn that were held; from now on it stays where it is."""
        held, turn.held = turn.held, []
        for frame in held:
            event = frame.encode() if isinstance(frame, str) else frame
            self._count(turn, event, head_of(event))
        return held

    def _passes(
        self, turn: Turn, event: bytes, head: Head, facts: Facts | None
    ) -> None:
        self._count(turn, event, head)
        terminal = TERMINAL.get(head.type or "")
        if terminal is not None:
            self._ended(turn, terminal, event, facts)
        elif head.type == "response.created":
            turn.created = event

    def _heard(self, turn: Turn) -> None:
        if not turn.answered:
            turn.answered = True
            turn.life.heard(time.perf_counter())

    def _count(self, turn: Turn, event: bytes, head: Head) -> None:
        life, now = turn.life, time.perf_counter()
        if turn.capture is not None:
            turn.capture.response_kinds = LINES
            turn.capture.keep(event)
            turn.capture.keep(b"\n")
        self._heard(turn)
        if not turn.shown and is_shown(head):
            turn.shown = True
            if life.decision.trial and TERMINAL.get(head.type or "") != "failed":
                self._in_flight.works_again(life)
        is_token = str(head.type).endswith(".delta")
        life.received(len(event), now if is_token else None)

    def _turn(self, upstream: Opened, lane: str | None) -> Turn | None:
        """Whose event it is: within a lane, turns are answered in order."""
        first = None
        for turn in self._running:
            if turn.runs_on(upstream):
                if turn.lane == lane:
                    return turn
                first = first or turn
        # Some upstreams may not echo the lane.
        return first if lane is None else None

    def _is_retried(
        self, turn: Turn, terminal: str, event: bytes, facts: Facts
    ) -> bool:
        """Did the turn fail in a way that another resource may not? Not if the client
        saw a part of its answer, or the upstream answers the next turn of its lane
        now."""
        life = turn.life
        if turn.shown or self._is_followed(turn):
            return False
        failure = failure_of(event, terminal, facts.error_code)
        step = life.rejected(failure, facts, utc_now)
        rewritten = step is REWRITE and self._replays
        if step is not ACQUIRE and not rewritten:
            return False
        self._gave_up(turn, rewritten=rewritten)
        return True

    def _is_followed(self, turn: Turn) -> bool:
        behind = self._running[self._running.index(turn) + 1 :]
        return any(t.lane == turn.lane and t.upstream is turn.upstream for t in behind)

    def broke(self, turn: Turn, reason: str) -> bool:
        """Its upstream's socket ended before its answer began. Returns whether another
        resource may be tried."""
        if not turn.life.may_repeat:
            return False
        turn.life.failed(Broken(reason))
        self._gave_up(turn)
        return True

    def _gave_up(self, turn: Turn, *, rewritten: bool = False) -> None:
        turn.life.heard(time.perf_counter())
        turn.answered, turn.created = False, b""
        turn.held.clear()
        turn.life.resent_elsewhere(rewritten=rewritten)
        self._in_flight.attempt_failed(turn.life)

    def _ended(
        self, turn: Turn, terminal: str, event: bytes, facts: Facts | None
    ) -> None:
        """`facts` are those of a large event or of an error."""
        large = len(event) > LARGEST_QUICK
        if facts is None or large:
            facts = facts or read_event(event)[1]
            assert turn.upstream is not None
            hide(facts, turn.upstream.target.sent)
        life, status = turn.life, 200
        bad = terminal in ("failed", "error")
        if terminal == "error" and not large:
            code, message = facts.error_code, facts.error_message
            status, verdict = of_error(event, code, utc_now, message)
            if status == 429:
                life.told_limits(failure_of(event, terminal, code).headers)
        elif bad:
            verdict = of_failed_response(facts.error_code, facts.error_message)
        else:
            verdict = Verdict(kind="ok", latency_ms=life.record.upstream_ms)
        life.concluded("failed" if bad else "completed", facts, verdict, status)
        self._settle(turn)


def _is_held(turn: Turn, head: Head) -> bool:
    """Does an event that does not end its turn say nothing of the response's output?"""
    if turn.shown or len(turn.held) >= MOST_HELD:
        return False
    return is_beginning(head) or (bool(turn.held) and not is_shown(head))
