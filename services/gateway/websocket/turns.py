"""The turns of one socket: each `response.create` frame is a request of the ledger,
with a lease, a decision and a row of its own, on a socket that connect.py finds. Reads
no more of passing frames than that takes."""

import asyncio
import time
from collections.abc import Iterable
from typing import Protocol

from libs.common.bodies.hints import LARGEST_QUICK, Hints, quick_hints, read_hints
from libs.common.headers import NO_KINDS
from libs.common.routing.types import Asker
from libs.common.upstream_answers.verdicts import Verdict
from services.gateway import errors
from services.gateway.auth import isolation
from services.gateway.content.body_reader import Read
from services.gateway.content.key_masking import hide
from services.gateway.content.response_facts import Facts, read_event
from services.gateway.errors import Problem
from services.gateway.ledger.record import NEUTRAL
from services.gateway.proxy.services import Limits
from services.gateway.proxy.steps import SENT, Failure
from services.gateway.proxy.turn_lifecycle import TurnLifecycle
from services.gateway.routing.target import Target
from services.gateway.websocket.failures import failure_frame
from services.gateway.websocket.frames import (
    Head,
    Message,
    head_in,
    head_of,
)
from services.gateway.websocket.turn_events import TurnEvents
from services.gateway.websocket.turn_types import (
    Failed,
    NotAdmitted,
    Turn,
    TurnContext,
)
from services.gateway.websocket.upstream import Opened

PATH = b"/responses"


class Connector(Protocol):
    """Finds the upstream's socket for a turn."""

    async def move(self, life: TurnLifecycle, target: Target) -> Opened | None:
        """The socket that a first turn uses instead of `target`'s, if any."""

    async def place(
        self, life: TurnLifecycle, current: Opened, most: int
    ) -> Opened | Failure:
        """A socket to a resource that can serve, or the upstream's last error."""


class SocketTurns:
    """What runs on one socket, in order of arrival."""

    def __init__(
        self,
        context: TurnContext,
        limits: Limits,
        upgrade: TurnLifecycle,
        opened: Opened,
        connector: Connector,
        peer: object = None,
    ) -> None:
        """`peer`: the client's address. The first turn gets the decision of the
        upgrade, unless its state is better served elsewhere."""
        self._context = context
        self._limits = limits
        self._in_flight = context.in_flight
        self._leases = context.leases
        self._request = upgrade.request
        self._tenant = upgrade.asker.tenant
        self._strict = context.access.strict
        self._isolated = upgrade.principal is not None or context.access.has_keys
        self._connector = connector
        self._peer = peer
        self._prepared: TurnLifecycle | None = upgrade
        self._fresh = True  # nothing was sent upstream yet
        self._pool_id = upgrade.hints.pool_id
        self._principal = upgrade.principal
        self.upstream = opened  # the socket that the next turn prefers
        self.running: list[Turn] = []
        # One at a time: the next turn finds the socket that the last one opened.
        self._placing = asyncio.Lock()
        self.events = TurnEvents(
            self.running,
            context.in_flight,
            context.reader,
            self._settle,
            replays=limits.replays,
        )

    @property
    def deadline(self) -> float | None:
        """When the oldest turn must have ended."""
        return self.running[0].deadline if self.running else None

    def needs(self, upstream: Opened) -> bool:
        """Is a turn under way on this socket, or may the next one be?"""
        if upstream is self.upstream:
            return True
        return any(turn.upstream is upstream for turn in self.running)

    # A client's frames -------------------------------------------------------

    async def begin(self, frame: Message) -> Turn | None:
        """Start the turn of a frame that asks for a response; None for another frame.
        Raises `NotAdmitted` when only this frame is refused."""
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
        capture = capturer.begin(plain, NO_KINDS)
        turn = Turn(life, head.lane, limit, frame, capture, head.store is False)
        # Before anything is awaited: whatever happens, it is settled.
        self.running.append(turn)
        self._in_flight.admitted(life)
        try:
            await self._admit(turn, plain, read)
        except Problem as problem:
            raise self._refused(turn, problem) from None
        await self.place(turn)
        return turn

    async def _admit(self, turn: Turn, plain: bytes, read: Read) -> None:
        """Check the frame. Raises a `Problem`."""
        access, life = self._context.access, turn.life
        # For each turn anew: a key may have been revoked since the upgrade.
        principal = await access.enter(life.headers)
        if principal is not None and principal.limited:
            quota = access.quota_of(principal, life.record.created_at_ms)
            life.limit(quota, plain)
        access.check_caller(principal, PATH, self._peer, life.headers)
        if self._isolated:
            if self._strict:
                isolation.check_frame(life.hints, "response.create", plain)
            life.names(None, *self._asker(life.hints, life.hints.named))
        self._follow_alias(turn, read)
        targets = self._context.selector.catalogue.alias_targets.get(
            read.hints.model or ""
        )
        access.check_request(principal, "WS", PATH, read.hints, targets)
        fresh, self._fresh = self._fresh, False
        if fresh:
            moved = await self._connector.move(life, self.upstream.target)
            if moved is not None:
                self._take(turn, moved)

    def _follow_alias(self, turn: Turn, read: Read) -> None:
        """A model alias must lead where the socket leads, or can still go. Raises a
        `Problem`."""
        life = turn.life
        targets = self._context.selector.catalogue.alias_targets.get(
            life.hints.model or ""
        )
        if targets is None:
            return
        asked = read_hints(PATH, life.headers, b"").pool_id
        life.follow(targets, asked)
        provider_id = self.upstream.target.resource.provider_id
        if not self._fresh:
            life.stay_at(provider_id)
        life.name_model(read.plain, read.scan)
        turn.send_body()
        here = any(target.provider_id == provider_id for target in targets)
        if not self._fresh and not here:
            raise errors.model_not_here(targets[0].alias, targets[0].provider_id)

    async def place(self, turn: Turn) -> None:
        """Take a lease for a turn that has none: on the resource of its socket if that
        can serve, else on another one, over a new upstream socket. Raises
        `NotAdmitted` when no resource can serve it."""
        async with self._placing:
            if turn.upstream is None:
                await self._place(turn)

    async def _place(self, turn: Turn) -> None:
        life, current = turn.life, self.upstream
        resource_id = current.target.resource.id
        # What only this socket remembers is lost with it.
        confined = turn.unstored and life.hints.previous_response_id is not None
        life.on_socket(resource_id, confined=confined)
        try:
            left = self._limits.attempts - life.made
            # The decision of an upgrade is an attempt that the first turn still has.
            most = left if life.retried else max(left, 1)
            found = await self._connector.place(life, current, most)
        except Problem as problem:
            raise self._refused(turn, problem) from None
        if isinstance(found, Failure):
            self._settle(turn)
            raise Failed(failure_frame(found, turn.lane, self._limits.pause_ms))
        self._take(turn, found)

    def again(self, turn: Turn) -> None:
        """Its attempt failed: `place` finds another resource."""
        self._give(turn)

    def _refused(self, turn: Turn, problem: Problem) -> NotAdmitted:
        turn.life.answers(problem)
        self._settle(turn)
        return NotAdmitted(problem, turn.lane)

    def _take(self, turn: Turn, upstream: Opened) -> None:
        """The turn runs on this socket, and later ones follow it."""
        turn.upstream = self.upstream = upstream
        life, record = turn.life, turn.life.record
        if life.replayed or life.targets is not None:
            turn.send_body()
        self._in_flight.offline.began(
            record.gateway_id, record.id, upstream.target.resource.id
        )

    def _give(self, turn: Turn) -> None:
        """The turn runs on no socket any more."""
        upstream, turn.upstream = turn.upstream, None
        if upstream is not None:
            record = turn.life.record
            self._in_flight.offline.ended(
                record.gateway_id, record.id, upstream.target.resource.id
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
            beside = isolation.ids_beside(plain, strict=self._strict)
            named = [*hints.named, *beside]
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

    def _life(self, plain: bytes, hints: Hints) -> TurnLifecycle:
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
        return hints.sent_to(self._pool_id, hints.model)

    # Order -------------------------------------------------------------------

    async def in_order(self, turn: Turn) -> None:
        """Wait for earlier turns of its lane that another socket serves: their events
        come first."""
        while (ahead := self._ahead(turn)) is not None:
            if ahead.over is None:
                ahead.over = asyncio.Event()
            await ahead.over.wait()

    def _ahead(self, turn: Turn) -> Turn | None:
        for other in self.running:
            if other is turn:
                break
            same = turn.upstream is not None and other.runs_on(turn.upstream)
            if other.lane == turn.lane and not same:
                return other
        return None

    def sent(self, turn: Turn) -> None:
        """Its frame goes upstream now."""
        turn.life.sent(time.perf_counter())

    # The end -----------------------------------------------------------------

    def end_all(
        self, outcome: str, problem: Problem | None = None, verdict: Verdict = NEUTRAL
    ) -> list[Turn]:
        """The socket ends, and so do its turns. Returns them."""
        ended = list(self.running)
        for turn in ended:
            self.end(turn, outcome, problem, verdict)
        return ended

    def end(
        self, turn: Turn, outcome: str, problem: Problem | None, verdict: Verdict
    ) -> None:
        """A turn ends without its terminal event."""
        facts = _named_by(turn.created)
        if turn.upstream is not None:
            hide(facts, turn.upstream.target.sent)
        if problem is not None:
            turn.life.answers(problem)
        status = 200 if problem is None and turn.answered else None
        said = verdict if turn.life.phase is SENT else NEUTRAL
        turn.life.concluded(outcome, facts, said, status)
        self._settle(turn)

    def _settle(self, turn: Turn) -> None:
        self.running.remove(turn)
        self._give(turn)
        self._in_flight.settle(turn.life, turn.capture)
        if turn.over is not None:
            turn.over.set()


def _named_by(created: bytes) -> Facts:
    if not created or len(created) > LARGEST_QUICK:
        return Facts()
    return read_event(created)[1]
