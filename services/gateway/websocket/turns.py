"""The turns of one socket: each `response.create` frame is a request of the ledger,
with a lease, a decision and a row of its own. Reads no more of passing frames than
that takes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection

from libs.common.bodies.hints import LARGEST_QUICK, Hints, quick_hints, read_hints
from libs.common.contracts.verdicts import Verdict, of_failed_response
from libs.common.headers import NO_KINDS, Kinds
from libs.common.providers.key_echoes import SentKey
from libs.common.routing.types import (
    Asker,
)
from services.gateway import errors
from services.gateway.auth import isolation
from services.gateway.content.body_reader import Read
from services.gateway.content.key_masking import hide
from services.gateway.content.response_facts import Facts, LargeAnswer, read_event
from services.gateway.errors import Problem
from services.gateway.ledger.record import NEUTRAL
from services.gateway.proxy.failures import utc_now
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.steps import SENT
from services.gateway.routing.catalogue import Target
from services.gateway.routing.model_alias import with_alias_model
from services.gateway.websocket.frames import (
    TERMINAL,
    Head,
    Message,
    head_in,
    head_of,
    of_error,
)
from services.gateway.websocket.turn_types import NotAdmitted, Turn, TurnContext
from services.gateway.websocket.upstream import Opened

log = structlog.get_logger()

PATH = b"/responses"
# Events of a socket as they are captured: one a line.
LINES: Kinds = (b"application/jsonl", None)


# The socket that a first turn uses instead of its target's, if any.
Move = Callable[[Lifecycle, Target], Awaitable[Opened | None]]


class SocketTurns:
    """What runs on one socket, in order of arrival."""

    def __init__(
        self, context: TurnContext, upgrade: Lifecycle, opened: Opened, move: Move
    ) -> None:
        """The first turn gets the decision of the upgrade, unless `move` knows a better
        place for it."""
        self._context = context
        self._in_flight = context.in_flight
        self._leases = context.leases
        self._request = upgrade.request
        self._tenant = upgrade.asker.tenant
        self._strict = context.access.strict
        self._isolated = upgrade.principal is not None or context.access.has_keys
        self._opened = opened
        self._move = move
        self._prepared: Lifecycle | None = upgrade
        self._fresh = True  # nothing was sent on the upstream's socket yet
        self._pool_id = upgrade.hints.pool_id
        self._principal = upgrade.principal
        self.running: list[Turn] = []

    @property
    def deadline(self) -> float | None:
        """When the oldest turn must have ended."""
        return self.running[0].deadline if self.running else None

    @property
    def connection(self) -> ClientConnection:
        """The upstream's socket; `begin` may have changed it."""
        return self._opened.connection

    @property
    def upstream_key(self) -> SentKey:
        """The key that the upstream got."""
        return self._target.sent

    @property
    def _target(self) -> Target:
        return self._opened.target

    # A client's frames -------------------------------------------------------

    async def begin(self, frame: Message) -> Turn | None:
        """Start the turn of a frame that asks for a response; None for another frame.
        Raises `OwnerGone` when the socket's resource is gone, `NotAdmitted` when only
        this frame is refused."""
        plain = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        if self._strict and isinstance(frame, bytes):
            raise NotAdmitted(errors.bad_body("is a binary frame; send text"), None)
        head, read = await self._head(plain)
        if head.type != "response.create":
            if self._isolated:
                await self._check_other(plain, head, read.hints)
            return None
        life = self._life(plain, read.hints)
        limit = asyncio.get_running_loop().time() + self._context.request_s
        capturer = self._in_flight.ledger.capturer
        turn = Turn(life, head.lane, limit, frame, capturer.begin(plain, NO_KINDS))
        # Before anything is awaited: whatever happens, it is settled.
        self.running.append(turn)
        self._in_flight.admitted(life)
        self._count(life)
        try:
            await self._admit(turn, plain, read)
        except Problem as problem:
            life.answers(problem)
            self._settle(turn)
            raise NotAdmitted(problem, turn.lane) from None
        return turn

    async def _admit(self, turn: Turn, plain: bytes, read: Read) -> None:
        """Check the frame, and take a lease. Raises a `Problem`."""
        access, life = self._context.access, turn.life
        # For each turn anew: a key may have been revoked since the upgrade.
        await access.count(await access.enter(life.headers))
        if self._isolated:
            if self._strict:
                isolation.check_frame(life.hints, "response.create", plain)
            life.names(None, *self._asker(life.hints, life.hints.named))
        moved = await self._place(turn, read)
        self._fresh = False
        if moved is None:
            await self._leases.pin(life, self._target.resource)
            return
        self._uncount(life)
        self._opened = moved
        self._count(life)

    def _count(self, life: Lifecycle) -> None:
        """Add to the load of the socket's resource."""
        record = life.record
        self._in_flight.offline.began(
            record.gateway_id, record.id, self._target.resource.id
        )

    def _uncount(self, life: Lifecycle) -> None:
        record = life.record
        self._in_flight.offline.ended(
            record.gateway_id, record.id, self._target.resource.id
        )

    def _asker(
        self, hints: Hints, named: Iterable[str]
    ) -> tuple[Asker, tuple[str, ...]]:
        return isolation.asker_for(self._tenant, hints, named, strict=self._strict)

    async def _check_other(self, plain: bytes, head: Head, hints: Hints) -> None:
        """A frame that asks for no response may name ids, too: of running responses,
        or of input for them. Raises `NotAdmitted`."""
        life = self._in_flight.arrived_on_socket(self._request)
        life.admit(PATH, self._in_pool(hints), self._principal)
        try:
            if self._strict:
                isolation.check_frame(hints, head.type, plain)
            named = [*hints.named, *isolation.ids_beside(plain)]
            life.names(None, *self._asker(hints, set(named) - self._running_ids()))
            if life.ids:
                await self._leases.check(life, life.ask(1, "", 0))
        except Problem as problem:
            raise NotAdmitted(problem, head.lane) from None

    def _running_ids(self) -> set[str]:
        """Ids of responses under way: Redis learns them when they end."""
        created = [turn.created for turn in self.running if turn.created]
        return {id_ for event in created for id_ in read_event(event)[1].ids}

    async def _head(self, plain: bytes) -> tuple[Head, Read]:
        """What a frame says. Only large or odd frames need an await."""
        headers, head = self._request.headers, Head()
        if len(plain) <= LARGEST_QUICK:
            head = head_of(plain)
            hints = quick_hints(PATH, headers, plain, self._isolated)
            if hints is not None:
                return head, Read(hints, plain)
        read = await self._context.reader.read(
            PATH, headers, plain, isolate=self._isolated
        )
        if read.scan is not None:
            head = head_in(read.scan.parsed)
        return head, read

    async def _place(self, turn: Turn, read: Read) -> Opened | None:
        """The socket that the turn uses instead of this one, if any. A model alias must
        lead where the socket leads, or can still go. Raises a `Problem`."""
        life = turn.life
        alias = self._context.selector.alias_targets.get(life.hints.model or "")
        if alias is not None:
            asked = read_hints(PATH, life.headers, b"").pool_id
            life.follow(alias, asked)
            body = with_alias_model(read.plain, alias, read.scan)
            turn.frame = body.decode() if isinstance(turn.frame, str) else body
            provider_id = self._target.resource.provider_id
            if not self._fresh and alias.provider_id != provider_id:
                raise errors.model_not_here(alias.alias, alias.provider_id)
        if not self._fresh:
            return None
        moved = await self._move(life, self._target)
        if moved is None:
            self._count(life)  # a decision for this resource ended its count
        return moved

    def sent(self, turn: Turn) -> None:
        """Its frame goes upstream now."""
        turn.life.sent(time.perf_counter())

    def _life(self, plain: bytes, hints: Hints) -> Lifecycle:
        life, self._prepared = self._prepared, None
        if life is None:
            life = self._in_flight.arrived_on_socket(self._request)
        else:
            life.begin_turn(time.perf_counter(), int(time.time() * 1000))
        life.rewrite(plain, plain=False)
        life.admit(PATH, self._in_pool(hints), self._principal)
        return life

    def _in_pool(self, hints: Hints) -> Hints:
        """The pool was chosen with the socket."""
        return msgspec.structs.replace(hints, pool_id=self._pool_id)

    # The upstream's frames ---------------------------------------------------

    def note(self, frame: Message) -> Awaitable[None] | None:
        """Note what an event says. Never raises: events pass, whatever they say. A
        large one has to be awaited."""
        event = frame.encode() if isinstance(frame, str) else frame
        if len(event) > LARGEST_QUICK:
            return self._note_large(event)
        try:
            self._note(event, head_of(event), None)
        except Exception:
            log.exception("event not understood", action="odd_answer")
        return None

    async def _note_large(self, event: bytes) -> None:
        try:
            large = LargeAnswer(event, event=True)
            await self._context.reader.run(large.steps())
            self._note(event, Head(large.type, large.lane), large.facts)
        except Exception:
            log.exception("event not understood", action="odd_answer")

    def _note(self, event: bytes, head: Head, facts: Facts | None) -> None:
        turn = self._turn(head.lane)
        if turn is None:
            return
        life, now = turn.life, time.perf_counter()
        if turn.capture is not None:
            turn.capture.response_kinds = LINES
            turn.capture.keep(event)
            turn.capture.keep(b"\n")
        if not turn.answered and life.phase is SENT:
            turn.answered = True
            life.heard(now)
        is_token = str(head.type).endswith(".delta")
        life.received(len(event), now if is_token else None)
        if head.type in TERMINAL:
            self._ended(turn, TERMINAL[head.type], event, facts)
        elif head.type == "response.created":
            turn.created = event

    def _turn(self, lane: str | None) -> Turn | None:
        """Whose event it is: within a lane, turns are answered in order."""
        for turn in self.running:
            if turn.lane == lane:
                return turn
        # Some upstreams may not echo the lane.
        return self.running[0] if self.running and lane is None else None

    def _ended(
        self, turn: Turn, terminal: str, event: bytes, facts: Facts | None
    ) -> None:
        """`facts` are those of a large event."""
        large = facts is not None
        facts = facts or read_event(event)[1]
        hide(facts, self.upstream_key)
        life, status = turn.life, 200
        bad = terminal in ("failed", "error")
        if terminal == "error" and not large:
            status, verdict = of_error(event, facts.error_code, utc_now)
        elif bad:
            verdict = of_failed_response(facts.error_code)
        else:
            verdict = Verdict(kind="ok", latency_ms=life.record.upstream_ms)
        life.concluded("failed" if bad else "completed", facts, verdict, status)
        self._settle(turn)

    # The end -----------------------------------------------------------------

    def end_all(
        self, outcome: str, problem: Problem | None = None, verdict: Verdict = NEUTRAL
    ) -> list[Turn]:
        """The socket ends, and so do its turns. Returns them."""
        ended = list(self.running)
        for turn in ended:
            facts = _named_by(turn.created)
            hide(facts, self.upstream_key)
            if problem is not None:
                turn.life.answers(problem)
            status = 200 if problem is None and turn.answered else None
            turn.life.concluded(outcome, facts, verdict, status)
            self._settle(turn)
        return ended

    def _settle(self, turn: Turn) -> None:
        self.running.remove(turn)
        self._uncount(turn.life)
        self._in_flight.settle(turn.life, turn.capture)


def _named_by(created: bytes) -> Facts:
    if not created or len(created) > LARGEST_QUICK:
        return Facts()
    return read_event(created)[1]
