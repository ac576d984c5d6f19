"""The data plane: one request's life, attempts included. Admit, acquire, send,
relay, release; whatever happens, the release is made."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import msgspec
import structlog

from libs.common.bodies.hints import Hints, quick_hints
from libs.common.bodies.strip_reasoning import without_reasoning
from libs.common.contracts.verdicts import Verdict, judge
from libs.common.headers import Header, find
from libs.common.proxy_keys import Principal
from libs.common.routing.accounts import account_named, unnamed
from libs.common.routing.types import ForeignId, Owner, OwnerGone, Refusal, digest
from services.gateway import errors, metrics
from services.gateway.auth import isolation
from services.gateway.auth.authenticator import UnknownKey
from services.gateway.auth.limits import Gate
from services.gateway.content.headers import downstream, request_head
from services.gateway.content.key_masking import without_key
from services.gateway.content.response_facts import read_answer, read_event
from services.gateway.errors import Problem
from services.gateway.ledger.record import NEUTRAL, Ledger
from services.gateway.proxy.body_reader import Read, Reader
from services.gateway.proxy.context import Exchange, Failure
from services.gateway.proxy.outcome import note_answer
from services.gateway.proxy.paths import Unopened, upstream_path
from services.gateway.proxy.relay import Relay, Torn
from services.gateway.proxy.retry import cause_of, retried
from services.gateway.routing.catalogue import Target
from services.gateway.routing.model_alias import follow, splice
from services.gateway.routing.offline import Fallback
from services.gateway.routing.selector import Chooser, problem_of
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request
from services.gateway.upstream.client import (
    Answer,
    Broken,
    NoKey,
    TimedOut,
    UpstreamClient,
    UpstreamError,
)
from services.gateway.upstream.errors import NoFreeConnection

log = structlog.get_logger()

CLIENT_GRACE_S = 5.0  # for the last bytes of an answer to be read
FAILURE_S = 5.0  # for a failed attempt's body
# TRACE echoes what it got, the upstream key included; CONNECT asks for a tunnel.
_REFUSED_METHODS = frozenset({"TRACE", "CONNECT"})
JSON_TYPE: Header = (b"content-type", b"application/json")
LARGEST_FAILURE = 1_048_576  # bytes of a failed attempt's body kept to pass on


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take."""

    body_bytes: int
    attempts: int
    request_s: float
    pause_ms: int = 30_000  # of a resource, when its upstream names no time
    replays: bool = False  # PROXY_REPLAY_WITHOUT_REASONING


class DataPlane:
    """Serves `/v1/*`."""

    def __init__(  # noqa: PLR0913 - what a request passes through, in order
        self,
        gateway_id: str,
        limits: Limits,
        gate: Gate,
        chooser: Chooser,
        fallback: Fallback,
        upstream: UpstreamClient,
        ledger: Ledger,
        reader: Reader,
    ) -> None:
        self._reader = reader
        self._gateway_id = gateway_id
        self._limits = limits
        self._gate = gate
        self._chooser = chooser
        self._upstream = upstream
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self.fallback = fallback
        self._draw: Callable[[int], int] = random.getrandbits
        self.active: dict[str, Exchange] = {}  # requests under way

    async def serve(self, request: Request, connection: Connection) -> None:
        exchange = Exchange(request, self._gateway_id)
        try:
            try:
                principal = self._gate.admit(exchange.headers)
            except UnknownKey:
                principal = await self._gate.enter(exchange.headers)
            isolated = principal is not None or self._gate.has_keys
            hints = self._quick_hints(exchange, isolated)
            read = hints if hints is not None else await self._read(exchange, isolated)
            self._admit(exchange, connection, principal, read)
            if principal is not None and principal.limited:
                await self._gate.count(principal)
            await self._try_all(exchange, connection)
        except Problem as problem:
            self._answer_problem(exchange, problem, connection)
        except asyncio.CancelledError:
            if not self._given_up(exchange, connection):
                raise
        except Torn as torn:
            log.debug("answer cut", action="answer_cut", cause=str(torn))
        except Exception as error:  # noqa: BLE001 - the outermost of a request
            self._answer_failure(exchange, error, connection)
        finally:
            self.active.pop(exchange.record.id, None)
            self._settle(exchange)
            connection.over()

    # Admission ---------------------------------------------------------------

    def _quick_hints(self, exchange: Exchange, isolated: bool) -> Hints | None:
        """Those of most requests. None when it takes more to read them."""
        request = exchange.request
        if request.method in _REFUSED_METHODS:
            raise errors.method_not_allowed(request.method)
        exchange.path = upstream_path(request.path)
        if request.coding is not None:
            return None
        return quick_hints(exchange.path, exchange.headers, exchange.body, isolated)

    async def _read(self, exchange: Exchange, isolated: bool) -> Read:
        """What `_quick_hints` does not read. A client that leaves cancels it."""
        coding = exchange.request.coding
        return await self._reader.read(
            exchange.path, exchange.headers, exchange.body, coding, isolate=isolated
        )

    def _admit(
        self,
        exchange: Exchange,
        connection: Connection,
        principal: Principal | None,
        read: Hints | Read,
    ) -> None:
        """Take the request into the ledger's books."""
        request = exchange.request
        hints = read.hints if isinstance(read, Read) else read
        tenant = "" if principal is None else principal.tenant
        exchange.take(hints, tenant)
        kinds = request.content_type, request.coding
        exchange.capture = self._ledger.capturer.begin(exchange.body, kinds)
        exchange.deadline = self._loop.time() + self._limits.request_s
        exchange.task = connection.task
        self.active[exchange.record.id] = exchange
        ways = self._chooser.ways
        way = ways.get(hints.model or "") if ways else None
        if way is None:
            exchange.comes_from(principal)
        else:
            follow(exchange, way, principal, hints.pool_id)
            if isinstance(read, Read):
                splice(exchange, way, read.plain, read.scan)
            else:
                splice(exchange, way, exchange.body)
        if tenant or self._gate.has_keys:
            plain = read.plain if isinstance(read, Read) else request.body
            self._isolate(exchange, tenant, plain)
        exchange.head = self._ledger.accepted(exchange.record)

    def _isolate(self, exchange: Exchange, tenant: str, plain: bytes) -> None:
        """Note which ids the request must be allowed to name. Raises a `Problem`."""
        request, hints, route = exchange.request, exchange.hints, None
        strict = self._gate.strict
        if strict:
            usual = isolation.plain_asker(tenant, hints, request, exchange.path)
            if usual is not None:
                exchange.asker = usual
                return
            route = isolation.route_of(request.method, exchange.path)
            isolation.check_body(route, hints, request, plain)
        asker, ids = isolation.asker_of(tenant, hints, route, strict=strict)
        exchange.names(route, asker, ids)

    # Deadlines ---------------------------------------------------------------

    def check(self, now: float) -> None:
        """Give up clients that do not read their answers. The upstream's part ends
        at the deadline; what is left after it is the client's, and must not hold
        its lease for ever."""
        for exchange in list(self.active.values()):
            if now > exchange.deadline + CLIENT_GRACE_S and exchange.task is not None:
                exchange.stalled = True
                exchange.task.cancel()

    def interrupt(self) -> None:
        """End what is under way: this gateway goes."""
        for exchange in list(self.active.values()):
            if exchange.task is not None:
                exchange.interrupted = True
                exchange.task.cancel()

    def _given_up(self, exchange: Exchange, connection: Connection) -> bool:
        """Note why the request's task was cancelled; False when it was not for a
        reason of ours."""
        record = exchange.record
        if connection.gone:
            record.outcome = "cancelled"
        elif exchange.interrupted:
            record.outcome, record.error_code = "interrupted", "gateway_restarts"
            if exchange.relay is not None:
                with suppress(Torn):
                    exchange.relay.cut("This gateway restarts; ask again.")
            elif not connection.began:
                self._say_restart(exchange, connection)
        record.outcome = record.outcome or "cancelled"
        return connection.gone or exchange.stalled or exchange.interrupted

    def _say_restart(self, exchange: Exchange, connection: Connection) -> None:
        problem = errors.restarts()
        exchange.record.status_code = problem.status
        headers = [JSON_TYPE, *problem.headers, *exchange.ours()]
        connection.send_whole(problem.status, headers, problem.body())

    # Attempts ----------------------------------------------------------------

    async def _try_all(self, exchange: Exchange, connection: Connection) -> None:
        record, fallback = exchange.record, self.fallback
        for attempt in range(1, self._limits.attempts + 1):
            try:
                target = await self._acquire(exchange, attempt)
            except Problem as problem:
                gone = problem.ledger_code == "affinity_owner_unavailable"
                if attempt == 1 or gone or _waiting_helps(exchange, problem):
                    raise
                break
            counted = record.gateway_id, record.id, target.resource.id
            fallback.began(*counted)
            try:
                if await self._attempt(exchange, target, connection):
                    return
            finally:
                fallback.ended(*counted)
        self._pass_on(exchange, connection)

    async def _attempt(
        self, exchange: Exchange, target: Target, connection: Connection
    ) -> bool:
        """Try one resource. False when another may be tried: then
        `exchange.failure` holds what this one said, if it spoke at all."""
        try:
            answer = await self._send(exchange, target)
        except UpstreamError as error:
            self._note_error(exchange, error)
            return False
        if unnamed(target.resource):
            self._learn_account(target, answer)
        if answer.status < 400 or exchange.request.method == "HEAD":
            return await self._relay(exchange, target, answer, connection)
        return await self._fail(exchange, target, answer, connection)

    async def _relay(
        self,
        exchange: Exchange,
        target: Target,
        answer: Answer,
        connection: Connection,
    ) -> bool:
        exchange.failure = None
        settle = partial(self._settle, exchange)
        relay = exchange.relay = Relay(
            answer,
            connection,
            settle,
            exchange.capture,
            target.sent,
            self._reader.run,
        )
        if exchange.hints.background and relay.streams:
            # Others may ask for it while this answer goes on.
            relay.on_created = partial(self._learn_early, exchange)
        if exchange.trial and answer.status < 300:
            # It works: others need not wait until this answer has ended.
            self._ledger.trial_begun_well(exchange)
        try:
            await relay.run(exchange.our_lines())
        finally:
            if relay.terminal is None:
                answer.close()
            else:
                answer.finish_alone()
        return True

    def _learn_early(self, exchange: Exchange, created: bytes) -> None:
        record = exchange.record
        learned = tuple([digest(id_) for id_ in read_event(created)[1].ids])
        tenant = exchange.asker.tenant
        owner = Owner(record.resource_id or "", record.account_id or "", tenant)
        self.fallback.remember_success("", learned, *msgspec.structs.astuple(owner))
        self._ledger.minted_early(learned, owner)

    def _learn_account(self, target: Target, answer: Answer) -> None:
        account = account_named(answer.headers)
        if account is not None and not target.sent.shown_in(account):
            self._ledger.account_named(target.resource.id, account)

    async def _send(self, exchange: Exchange, target: Target) -> Answer:
        if not target.authorization:
            raise NoKey
        request, body, headers = exchange.request, exchange.body, exchange.headers
        wire_path = target.path + exchange.path + request.query
        announced = body or find(headers, b"content-length") is not None
        head = request_head(
            request.method,
            wire_path,
            target.host,
            target.authorization,
            headers,
            len(body) if announced else None,
        )
        started = exchange.sent_at = time.perf_counter()
        if exchange.record.overhead_ms is None:
            exchange.record.overhead_ms = exchange.ms(started)
        bodiless = request.method == "HEAD"
        send, deadline = self._upstream.send, exchange.deadline
        try:
            return await send(target.origin, head, body, deadline, bodiless=bodiless)
        except Broken as broken:
            if not broken.reused:
                raise
            # An idle connection that had just been closed: nobody's fault.
            return await send(target.origin, head, body, deadline, bodiless=bodiless)
        finally:
            spent = (time.perf_counter() - started) * 1000
            exchange.record.upstream_ms = int(spent * 1000) / 1000

    async def _acquire(self, exchange: Exchange, attempt: int) -> Target:
        ask = exchange.ask(attempt, self._draw(31))
        try:
            decision = await self._chooser.decide(ask, exchange.ids)
        except ForeignId as refused:
            raise exchange.foreign(refused) from None
        except Refusal as refusal:
            gone = isinstance(refusal, OwnerGone)
            if gone and self._may_replay(exchange) and await self._rewrite(exchange):
                return await self._acquire(exchange, attempt)
            raise problem_of(refusal, ask, exchange.record.method) from None
        target = self._chooser.known(decision) or await self._chooser.find(decision)
        exchange.goes_to(decision, target.resource.account_id, attempt)
        return target

    # Replays -----------------------------------------------------------------

    def _may_replay(self, exchange: Exchange) -> bool:
        """Is this a request that its account alone can read, and another may get
        without its reasoning?"""
        bound = exchange.hints.account_bound and not exchange.replayed
        return self._limits.replays and bound

    async def _rewrite(self, exchange: Exchange) -> bool:
        try:
            plain = await self._reader.opened(exchange.body, exchange.request.coding)
        except Unopened:
            return False
        body = without_reasoning(plain)
        if body is not None:
            exchange.unbind(body)
        return body is not None

    async def _rewritten_for_another(self, exchange: Exchange) -> bool:
        """A history that was replayed elsewhere before still carries the reasoning
        of the account that is gone; the one that serves it now refuses that."""
        if exchange.record.error_code != "invalid_encrypted_content":
            return False
        exchange.tried = exchange.tried[:-1]  # it can read the rest
        return await self._rewrite(exchange)

    # Failed attempts ---------------------------------------------------------

    def _note_error(self, exchange: Exchange, error: UpstreamError) -> None:
        cause = str(error)
        if isinstance(error, TimedOut):
            # The whole request's time is up: there is none left to try again.
            verdict = Verdict(kind="fault", cause="timeout")
            self._another(exchange, verdict, error.cause)
            raise errors.upstream_timeout(self._limits.request_s)
        if exchange.failure is None:
            exchange.record.error_message = cause
        # A key or a free connection that is missing here is this gateway's trouble,
        # not the resource's.
        ours = isinstance(error, NoKey | NoFreeConnection)
        verdict = NEUTRAL if ours else Verdict(kind="fault", cause=cause)
        self._another(exchange, verdict, error.cause)

    async def _fail(
        self,
        exchange: Exchange,
        target: Target,
        answer: Answer,
        connection: Connection,
    ) -> bool:
        """Take an error in, whole. False when another resource may be tried; else the
        client has it."""
        status = answer.status
        replays = status == 400 and self._may_replay(exchange)
        elsewhere = retried(status)
        try:
            body = await _whole(answer)
        except UpstreamError as error:
            self._note_error(exchange, error)
            return False
        finally:
            answer.close()
        headers, body, plain = without_key(status, answer.headers, body, target.sent)
        facts = read_answer(plain)
        exchange.failure = Failure(status, headers, body)
        exchange.record.error_code = facts.error_code
        exchange.record.error_message = facts.error_message
        if elsewhere or replays:
            verdict = judge(status, headers, facts.error_code, _now)
            self._another(exchange, verdict, cause_of(status, verdict))
        if elsewhere or (replays and await self._rewritten_for_another(exchange)):
            return False
        self._pass_on(exchange, connection)
        return True

    def _another(self, exchange: Exchange, verdict: Verdict, cause: str) -> None:
        self._ledger.attempt_failed(exchange, verdict)
        exchange.judged, exchange.cause = True, cause
        exchange.tried = (*exchange.tried, exchange.record.resource_id or "")

    def _pass_on(self, exchange: Exchange, connection: Connection) -> None:
        """Nobody could serve: the client gets the last failure as it was."""
        failure, record = exchange.failure, exchange.record
        if failure is None:
            raise errors.upstream_unreachable(
                record.attempts, record.error_message or "no answer"
            )
        headers = downstream(failure.headers, exchange.ours())
        if failure.status == 429:
            headers = with_whole_retry_after(headers, self._limits.pause_ms)
        record.status_code = failure.status
        record.outcome = "failed"
        record.response_bytes = len(failure.body)
        if exchange.capture is not None:
            exchange.capture.whole(failure.headers, failure.body)
        self._settle(exchange)
        connection.send_whole(failure.status, headers, failure.body)

    # Ends --------------------------------------------------------------------

    def _answer_problem(
        self, exchange: Exchange, problem: Problem, connection: Connection
    ) -> None:
        record = exchange.record
        if not exchange.accepted:
            metrics.count_refused(problem.ledger_code)
        record.outcome = "failed"
        record.status_code = problem.status
        record.error_code = problem.ledger_code
        record.error_message = problem.message
        body = problem.body()
        record.response_bytes = len(body)
        if problem.ledger_code == "affinity_owner_unavailable":
            exchange.reason = problem.ledger_code
        headers: list[Header] = [
            JSON_TYPE,
            *problem.headers,
            *exchange.ours(),
        ]
        if exchange.capture is not None:
            exchange.capture.whole(headers, body)
        self._settle(exchange)
        connection.send_whole(problem.status, headers, body)

    def _answer_failure(
        self, exchange: Exchange, error: Exception, connection: Connection
    ) -> None:
        """A fault of ours: logged, said, and in the books."""
        log.error(
            "request failed",
            action="request_failed",
            request=exchange.record.id,
            exc_info=error,
        )
        if not connection.began:
            self._answer_problem(exchange, errors.internal(), connection)

    def _settle(self, exchange: Exchange) -> None:
        """Close the books on a request, once: one event, and its lease gone."""
        if not exchange.accepted or exchange.settled:
            return
        exchange.settled = True
        record = exchange.record
        learned: tuple[str, ...] = ()
        record.latency_ms = exchange.ms()
        if exchange.relay is not None:
            try:
                learned = note_answer(exchange, exchange.relay)
            except Exception:
                # Whatever an answer holds: the books are closed on it.
                log.exception("odd answer", action="odd_answer", request=record.id)
        if record.outcome is None:
            record.outcome = "failed"
        home = exchange.session if record.outcome == "completed" else ""
        if record.resource_id and (home or learned):
            account, tenant = record.account_id or "", exchange.asker.tenant
            self.fallback.remember_success(
                home, learned, record.resource_id, account, tenant
            )
        if exchange.principal is not None:
            self._gate.spend(exchange.principal, record.total_tokens)
        self._ledger.request_ended(exchange, learned)


def _waiting_helps(exchange: Exchange, problem: Problem) -> bool:
    """Was the last failure a refused key, while another key of the account is only
    rate limited? Clients take a 401 for theirs and give up; this one they can wait
    out."""
    failure = exchange.failure
    refused = failure is not None and failure.status in (401, 403)
    return refused and problem.status == 429


async def _whole(answer: Answer) -> bytes:
    """A failed attempt's body, which is small; what is over the bound is cut.
    Raises `Broken` when it does not come."""
    body = bytearray()
    try:
        async with asyncio.timeout(FAILURE_S):
            while len(body) < LARGEST_FAILURE and (chunk := await answer.next()):
                body += chunk
    except TimeoutError:
        raise Broken("its error never ended") from None
    return bytes(body)


def with_whole_retry_after(headers: Sequence[Header], pause_ms: int) -> list[Header]:
    """Every 429 leaves with an integer Retry-After: Codex dies without one. Where
    the upstream names no time it is that of our own pause."""
    value = find(headers, b"retry-after")
    if value is not None and value.isdigit() and int(value) > 0:
        return list(headers)
    asked_ms = judge(429, headers, None, _now).cooldown_ms
    kept = [header for header in headers if header[0] != b"retry-after"]
    return [*kept, errors.retry_after(pause_ms if asked_ms is None else asked_ms)]


def _now() -> datetime:
    return datetime.now(UTC)
