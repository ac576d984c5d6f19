"""The requests of one socket: each `response.create` frame is one of the ledger,
with a lease, a decision and a row of its own. Reads of passing frames what that
takes, and no more."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection

from libs.common.bodies.hints import LARGEST_QUICK, Hints, quick_hints, read_hints
from libs.common.contracts.events import Reason
from libs.common.contracts.verdicts import Verdict, of_failed_response
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.headers import NO_KINDS, Kinds
from libs.common.providers.key_echoes import SentKey
from libs.common.routing.aliases import Way
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import (
    Ask,
    Asker,
    Decision,
    ForeignId,
    UnknownIds,
    digest,
)
from services.gateway import errors
from services.gateway.auth import isolation
from services.gateway.auth.limits import Gate
from services.gateway.content.key_masking import hide
from services.gateway.content.response_facts import Facts, LargeAnswer, read_event
from services.gateway.errors import Problem
from services.gateway.ledger.record import NEUTRAL, Ledger
from services.gateway.proxy.body_reader import Read, Reader
from services.gateway.proxy.context import Exchange
from services.gateway.routing.catalogue import Directory, Target
from services.gateway.routing.model_alias import follow, spliced
from services.gateway.routing.offline import Fallback
from services.gateway.routing.selector import Chooser
from services.gateway.websocket.frames import (
    TERMINAL,
    Frame,
    Head,
    head_in,
    head_of,
    of_error,
)
from services.gateway.websocket.upstream import Opened

log = structlog.get_logger()

PATH = b"/responses"
# Events of a socket as they are captured: one a line.
LINES: Kinds = (b"application/jsonl", None)


@dataclass(frozen=True, slots=True)
class Books:
    """Where requests of sockets are accounted for."""

    gateway_id: str
    gate: Gate
    routing: RoutingFunctions
    ledger: Ledger
    fallback: Fallback
    active: dict[str, Exchange]  # of all requests of this gateway
    request_s: float
    directory: Directory
    chooser: Chooser
    reader: Reader


@dataclass(slots=True, eq=False)
class Turn:
    """A request under way on a socket."""

    exchange: Exchange
    lane: str | None
    deadline: float  # of the event loop's clock
    frame: Frame  # as it goes upstream
    created: bytes = b""  # the event that names the response
    answered: bool = False


class NotAdmitted(Exception):
    """A frame that its proxy key does not allow (any more)."""

    def __init__(self, problem: Problem, lane: str | None) -> None:
        self.problem = problem
        self.lane = lane
        super().__init__()


# The socket that a first request should use instead of its target's, if any.
Move = Callable[[Exchange, Target], Awaitable[Opened | None]]


class SocketRequests:
    """What runs on one socket, in order of arrival."""

    def __init__(
        self, books: Books, upgrade: Exchange, opened: Opened, move: Move
    ) -> None:
        """The upgrade's decision becomes that of the first request, unless `move`
        knows a better place for it."""
        self._books = books
        self._request = upgrade.request
        self._upgrade = upgrade
        self._strict = books.gate.strict
        self._isolated = upgrade.principal is not None or books.gate.has_keys
        self._opened = opened
        self._move = move
        self._prepared: Exchange | None = upgrade
        self._fresh = True  # no request was sent on the upstream's socket yet
        self._pool_id = upgrade.hints.pool_id
        self._principal = upgrade.principal
        self.running: list[Turn] = []

    @property
    def deadline(self) -> float | None:
        """When the oldest request must have ended."""
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

    async def begin(self, frame: Frame) -> Turn | None:
        """Account for a frame that asks for a response. Raises `OwnerGone` when
        the socket's resource is gone, `NotAdmitted` when only this frame is over."""
        plain = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
        if self._strict and isinstance(frame, bytes):
            raise NotAdmitted(isolation.bad_body("is a binary frame; send text"), None)
        head, read = await self._head(plain)
        if head.type != "response.create":
            if self._isolated:
                await self._check_other(plain, head, read.hints)
            return None
        exchange = self._exchange(plain, read.hints)
        limit = asyncio.get_running_loop().time() + self._books.request_s
        turn = Turn(exchange, head.lane, limit, frame)
        # Before anything is awaited: whatever happens, it will be settled.
        self.running.append(turn)
        self._books.active[exchange.record.id] = exchange
        self._books.ledger.accepted(exchange.record)
        self._books.fallback.began(*self._counted(exchange))
        await self._admit(turn)
        self._isolate(turn, plain)
        moved = await self._place(turn, read)
        self._fresh = False
        if moved is not None:
            self._books.fallback.ended(*self._counted(exchange))
            self._opened = moved
            self._books.fallback.began(*self._counted(exchange))
        else:
            try:
                await self._pin(exchange)
            except Problem as problem:
                raise self._refused(turn, problem) from None
        return turn

    async def _admit(self, turn: Turn) -> None:
        """Each request anew: a key may have been revoked since the upgrade."""
        gate, exchange = self._books.gate, turn.exchange
        try:
            await gate.count(await gate.enter(exchange.headers))
        except Problem as problem:
            raise self._refused(turn, problem) from None

    def _isolate(self, turn: Turn, plain: bytes) -> None:
        """Note which ids the frame must be allowed to name."""
        if not self._isolated:
            return
        exchange = turn.exchange
        try:
            if self._strict:
                isolation.check_frame(exchange.hints, "response.create", plain)
        except Problem as problem:
            raise self._refused(turn, problem) from None
        exchange.names(*self._asker(exchange, exchange.hints.named))

    def _asker(
        self, exchange: Exchange, named: Iterable[str]
    ) -> tuple[None, Asker, tuple[str, ...]]:
        asker, ids = isolation.asker_for(
            exchange.asker.tenant, exchange.hints, named, strict=self._strict
        )
        return None, asker, ids

    async def _check_other(self, plain: bytes, head: Head, hints: Hints) -> None:
        """A frame that asks for no response may name ids, too: of running responses,
        or of input for them. Raises `NotAdmitted`."""
        exchange = Exchange(self._request, self._books.gateway_id, "WS")
        exchange.take(hints, self._upgrade.asker.tenant)
        try:
            if self._strict:
                isolation.check_frame(hints, head.type, plain)
            named = [*hints.named, *isolation.ids_beside(plain)]
            exchange.names(*self._asker(exchange, set(named) - self._running_ids()))
            if exchange.ids:
                await self._check(exchange, exchange.ask(1, 0))
        except Problem as problem:
            raise NotAdmitted(problem, head.lane) from None

    def _running_ids(self) -> set[str]:
        """Ids of responses under way: Redis learns them when they end."""
        created = [turn.created for turn in self.running if turn.created]
        return {id_ for event in created for id_ in read_event(event)[1].ids}

    async def _head(self, plain: bytes) -> tuple[Head, Read]:
        """What a frame says of itself. Only of large frames, and odd ones, is anything
        awaited."""
        headers, head = self._request.headers, Head()
        if len(plain) <= LARGEST_QUICK:
            head = head_of(plain)
            hints = quick_hints(PATH, headers, plain, self._isolated)
            if hints is not None:
                return head, Read(hints, plain)
        read = await self._books.reader.read(
            PATH, headers, plain, isolate=self._isolated
        )
        if read.scan is not None:
            head = head_in(read.scan.parsed)
        return head, read

    async def _place(self, turn: Turn, read: Read) -> Opened | None:
        """The socket that the request should use instead of this one, if any. A model
        alias has to lead where the socket does, or can still go."""
        exchange = turn.exchange
        way = self._books.directory.ways.get(exchange.hints.model or "")
        try:
            if way is not None:
                self._take(turn, way, read)
                if (
                    not self._fresh
                    and way.provider_id != self._target.resource.provider_id
                ):
                    raise errors.model_not_here(way.alias, way.provider_id)
            return await self._move(exchange, self._target) if self._fresh else None
        except Problem as problem:
            raise self._refused(turn, problem) from None

    def _take(self, turn: Turn, way: Way, read: Read) -> None:
        asked = read_hints(PATH, turn.exchange.headers, b"").pool_id
        follow(turn.exchange, way, self._principal, asked)
        body = spliced(read.plain, way, read.scan)
        turn.frame = body.decode() if isinstance(turn.frame, str) else body

    def _refused(self, turn: Turn, problem: Problem) -> NotAdmitted:
        """Only this frame is over."""
        self._fail(turn, problem, "failed")
        self._settle(turn, Facts())
        return NotAdmitted(problem, turn.lane)

    def _counted(self, exchange: Exchange) -> tuple[str, str, str]:
        record = exchange.record
        return record.gateway_id, record.id, self._target.resource.id

    def sent(self, turn: Turn) -> None:
        """Its frame goes upstream now."""
        exchange = turn.exchange
        exchange.sent_at = time.perf_counter()
        exchange.record.overhead_ms = exchange.ms(exchange.sent_at)

    def _exchange(self, plain: bytes, hints: Hints) -> Exchange:
        exchange, self._prepared = self._prepared, None
        if exchange is None:
            exchange = Exchange(self._request, self._books.gateway_id, "WS")
        else:
            exchange.began = time.perf_counter()
            exchange.record.created_at_ms = int(time.time() * 1000)
        # A socket's pool was chosen with it.
        hints = msgspec.structs.replace(hints, pool_id=self._pool_id)
        exchange.take(hints, self._upgrade.asker.tenant)
        exchange.comes_from(self._principal)
        exchange.capture = self._books.ledger.capturer.begin(plain, NO_KINDS)
        exchange.record.request_bytes = len(plain)
        exchange.record.transport = "ws"
        return exchange

    async def _pin(self, exchange: Exchange) -> None:
        resource, record = self._target.resource, exchange.record
        # By the upgrade, for the first request.
        decided = record.resource_id == resource.id
        attempt = record.attempts + (0 if decided else 1)
        ask = exchange.ask(attempt, 0)
        record.resource_id = None  # nobody's until it is pinned
        try:
            found = await self._pinned(ask, exchange, decided=decided)
            if not decided:
                self._books.ledger.decided(ask.decision_id, found.event)
        except ForeignId as refused:
            raise exchange.foreign(refused) from None
        except (RedisAway, NoCatalogue):
            await self._check(exchange, ask)
            found = Decision(resource.id, Reason.SOCKET, "", degraded=True)
            if not decided:
                event = _decided_alone(ask, resource.id)
                self._books.ledger.decided_alone(ask.decision_id, event)
        exchange.goes_to(found, resource.account_id, attempt)

    async def _pinned(self, ask: Ask, exchange: Exchange, *, decided: bool) -> Decision:
        routing, resource = self._books.routing, self._target.resource
        try:
            return await routing.pin(ask, resource.id, decided=decided)
        except UnknownIds:
            await self._check(exchange, ask)
            ask = msgspec.structs.replace(ask, resolved=True)
            return await routing.pin(ask, resource.id, decided=decided)

    async def _check(self, exchange: Exchange, ask: Ask) -> None:
        """May it name its ids? Asks Redis, SQL, or what this gateway knows. Raises a
        `Problem`."""
        try:
            await self._books.chooser.check(ask, exchange.ids)
        except ForeignId as refused:
            raise exchange.foreign(refused) from None

    # The upstream's frames ---------------------------------------------------

    def note(self, frame: Frame) -> Awaitable[None] | None:
        """Take what an event tells. Never raises: events pass, whatever they say. A
        large one has to be awaited."""
        event = frame.encode() if isinstance(frame, str) else frame
        if len(event) > LARGEST_QUICK:
            return self._note_large(event)
        try:
            self._note(event, head_of(event), None)
        except Exception:
            log.exception("odd event", action="odd_answer")
        return None

    async def _note_large(self, event: bytes) -> None:
        try:
            large = LargeAnswer(event, event=True)
            await self._books.reader.run(large.steps())
            self._note(event, Head(large.type, large.lane), large.facts)
        except Exception:
            log.exception("odd event", action="odd_answer")

    def _note(self, event: bytes, head: Head, facts: Facts | None) -> None:
        turn = self._turn(head.lane)
        if turn is None:
            return
        exchange, record = turn.exchange, turn.exchange.record
        record.response_bytes += len(event)
        if exchange.capture is not None:
            exchange.capture.response_kinds = LINES
            exchange.capture.keep(event)
            exchange.capture.keep(b"\n")
        if not turn.answered and exchange.sent_at is not None:
            turn.answered = True
            spent = (time.perf_counter() - exchange.sent_at) * 1000
            record.upstream_ms = round(spent, 3)
        if head.type in TERMINAL:
            self._ended(turn, TERMINAL[head.type], event, facts)
        elif head.type == "response.created":
            turn.created = event
        elif record.first_token_ms is None and str(head.type).endswith(".delta"):
            record.first_token_ms = exchange.ms()

    def _turn(self, lane: str | None) -> Turn | None:
        """Whose event: within a lane requests are answered in order."""
        for turn in self.running:
            if turn.lane == lane:
                return turn
        # Some upstreams may not echo the lane.
        return self.running[0] if self.running and lane is None else None

    def _ended(
        self, turn: Turn, terminal: str, event: bytes, facts: Facts | None
    ) -> None:
        """`facts` are those of a large event."""
        exchange, record = turn.exchange, turn.exchange.record
        large = facts is not None
        facts = facts or read_event(event)[1]
        hide(facts, self.upstream_key)
        record.status_code = 200
        if terminal == "error" and not large:
            record.status_code, exchange.verdict = of_error(
                event, facts.error_code, _now
            )
        elif terminal in ("failed", "error"):
            exchange.verdict = of_failed_response(facts.error_code)
        else:
            exchange.verdict = Verdict(kind="ok", latency_ms=record.upstream_ms)
        bad = terminal in ("failed", "error")
        record.outcome = "failed" if bad else "completed"
        self._settle(turn, facts)

    # Ends --------------------------------------------------------------------

    def end_all(
        self, outcome: str, problem: Problem | None = None, verdict: Verdict = NEUTRAL
    ) -> list[Turn]:
        """The socket is over: so are its requests. Returns them."""
        ended = list(self.running)
        for turn in ended:
            turn.exchange.verdict = verdict
            if problem is not None:
                self._fail(turn, problem, outcome)
            else:
                turn.exchange.record.outcome = outcome
                if turn.answered:
                    turn.exchange.record.status_code = 200
            facts = _named_by(turn.created)
            hide(facts, self.upstream_key)
            self._settle(turn, facts)
        return ended

    def _fail(self, turn: Turn, problem: Problem, outcome: str) -> None:
        record = turn.exchange.record
        record.outcome = outcome
        record.status_code = problem.status
        record.error_code = problem.ledger_code
        record.error_message = problem.message

    def _settle(self, turn: Turn, facts: Facts) -> None:
        """Close the books on a request: exactly one event, and its lease gone."""
        books, exchange = self._books, turn.exchange
        record = exchange.record
        self.running.remove(turn)
        books.active.pop(record.id, None)
        resource = self._target.resource
        books.fallback.ended(*self._counted(exchange))
        record.take(facts)
        record.minted = facts.ids
        record.latency_ms = exchange.ms()
        learned = tuple([digest(id_) for id_ in facts.ids])
        home = exchange.session if record.outcome == "completed" else ""
        if home or learned:
            account, tenant = resource.account_id, exchange.asker.tenant
            books.fallback.remember_success(home, learned, resource.id, account, tenant)
        books.gate.spend(exchange.principal, record.total_tokens)
        books.ledger.request_ended(exchange, learned)


def _named_by(created: bytes) -> Facts:
    if not created or len(created) > LARGEST_QUICK:
        return Facts()
    return read_event(created)[1]


def _decided_alone(ask: Ask, resource_id: str) -> bytes:
    return msgspec.json.encode(
        {
            "request_id": ask.request_id,
            "attempt": ask.attempt,
            "created_at_ms": int(time.time() * 1000),
            "session_id": ask.session_id,
            "pool_id": ask.pool_id,
            "resource_id": resource_id,
            "reason": Reason.SOCKET,
            "candidates": [],
            "degraded": True,
            "cause": ask.cause or None,
        }
    )


def _now() -> datetime:
    return datetime.now(UTC)
