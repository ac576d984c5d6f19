"""The data plane: one request's life, attempts included. Admit, acquire, send,
relay, release; whatever happens, the release is made."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog

from libs.common.accounts import account_named, unnamed
from libs.common.asks import OwnerGone, Refusal
from libs.common.contracts import Verdict
from libs.common.headers import Header, find
from libs.common.hints import read_hints
from libs.common.replay import without_reasoning
from libs.common.verdicts import judge
from services.gateway import problems
from services.gateway.answers import read_answer
from services.gateway.choosing import Chooser, problem_of
from services.gateway.closing import note_answer
from services.gateway.directory import Target
from services.gateway.exchange import Exchange, Failure
from services.gateway.failover import retried
from services.gateway.fallback import Fallback
from services.gateway.headers import downstream, request_head
from services.gateway.incoming import (
    ClientLeft,
    Presence,
    Receive,
    Scope,
    Send,
    discard_rest,
    opened,
    read_body,
    upstream_path,
)
from services.gateway.outcomes import NEUTRAL, Ledger
from services.gateway.problems import Problem
from services.gateway.relay import Relay, Torn, opener
from services.gateway.upstream import (
    Answer,
    Broken,
    NoKey,
    TimedOut,
    UpstreamClient,
    UpstreamError,
)

log = structlog.get_logger()

CLIENT_GRACE_S = 5.0  # for the last bytes of an answer to be read
FAILURE_S = 5.0  # for a failed attempt's body
# TRACE echoes what it got, the upstream key included; CONNECT asks for a tunnel.
_REFUSED_METHODS = frozenset({"TRACE", "CONNECT"})
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
    """Serves `/v1/*`, an ASGI application."""

    def __init__(
        self,
        gateway_id: str,
        limits: Limits,
        chooser: Chooser,
        fallback: Fallback,
        upstream: UpstreamClient,
        ledger: Ledger,
    ) -> None:
        self._gateway_id = gateway_id
        self._limits = limits
        self._chooser = chooser
        self._upstream = upstream
        self._ledger = ledger
        self.fallback = fallback
        self._draw: Callable[[int], int] = random.getrandbits
        self.active: dict[str, Exchange] = {}  # requests under way

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, self._gateway_id)
        presence: Presence | None = None
        self.active[exchange.record.id] = exchange
        try:
            await self._admit(exchange, receive)
            presence = Presence(receive)
            await self._forward(exchange, send)
        except Problem as problem:
            await self._answer_problem(exchange, problem, send)
            await discard_rest(receive, problem)
        except ClientLeft:
            exchange.record.outcome = "cancelled"
        except asyncio.CancelledError:
            exchange.record.outcome = "cancelled"
            if presence is None or not presence.left:
                raise
        except Torn:
            raise  # breaks the connection, as it must
        except Exception as error:  # noqa: BLE001 - the outermost of a request
            await self._answer_failure(exchange, error, send)
        finally:
            if presence is not None:
                presence.stop()
            self.active.pop(exchange.record.id, None)
            self._settle(exchange)

    # Admission ---------------------------------------------------------------

    async def _admit(self, exchange: Exchange, receive: Receive) -> None:
        """Read the request and take it into the ledger's books."""
        scope = exchange.scope
        if scope["method"] in _REFUSED_METHODS:
            raise problems.method_not_allowed(scope["method"])
        exchange.path = upstream_path(scope["raw_path"])
        exchange.body = await read_body(
            receive, exchange.headers, self._limits.body_bytes
        )
        plain = opened(exchange.body, exchange.headers)
        exchange.take(read_hints(exchange.path, exchange.headers, plain))
        self._ledger.accepted(exchange.record)

    # Attempts ----------------------------------------------------------------

    async def _forward(self, exchange: Exchange, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + self._limits.request_s
        try:
            # The upstream's part ends at the deadline; a client that does not
            # read its answer must not hold the lease for ever either.
            async with asyncio.timeout_at(deadline + CLIENT_GRACE_S):
                await self._try_all(exchange, deadline, send)
        except TimeoutError:
            exchange.stalled = True
            raise Torn("The client does not read its answer.") from None

    async def _try_all(self, exchange: Exchange, deadline: float, send: Send) -> None:
        for attempt in range(1, self._limits.attempts + 1):
            try:
                target = await self._acquire(exchange, attempt)
            except Problem as problem:
                gone = problem.ledger_code == "affinity_owner_unavailable"
                if attempt == 1 or gone:
                    raise
                break
            counted = exchange.record.gateway_id, exchange.record.id, target.resource.id
            self.fallback.began(*counted)
            try:
                if await self._attempt(exchange, target, deadline, send):
                    return
            finally:
                self.fallback.ended(*counted)
        await self._pass_on(exchange, send)

    async def _attempt(
        self, exchange: Exchange, target: Target, deadline: float, send: Send
    ) -> bool:
        """Try one resource. False when another may be tried: then
        `exchange.failure` holds what this one said, if it spoke at all."""
        try:
            answer = await self._send(exchange, target, deadline)
        except UpstreamError as error:
            self._note_error(exchange, error)
            return False
        if unnamed(target.resource):
            self._learn_account(target, answer)
        if retried(answer.status):
            await self._note_refusal(exchange, answer)
            return False
        if answer.status == 400 and self._may_replay(exchange):
            return await self._answer_or_replay(exchange, answer, send)
        return await self._relay(exchange, answer, send)

    async def _relay(self, exchange: Exchange, answer: Answer, send: Send) -> bool:
        exchange.failure = None
        settle = partial(self._settle, exchange)
        relay = exchange.relay = Relay(answer, exchange.ours(), settle)
        if exchange.trial and answer.status < 300:
            # It works: others need not wait until this answer has ended.
            self._ledger.trial_begun_well(exchange)
        try:
            await relay.run(send)
        finally:
            answer.close()
        return True

    def _learn_account(self, target: Target, answer: Answer) -> None:
        account = account_named(answer.headers)
        if account is not None:
            self._ledger.account_named(target.resource.id, account)

    async def _send(
        self, exchange: Exchange, target: Target, deadline: float
    ) -> Answer:
        if not target.authorization:
            raise NoKey
        scope, body = exchange.scope, exchange.body
        wire_path = target.path + exchange.path
        if scope["query_string"]:
            wire_path += b"?" + scope["query_string"]
        announced = body or find(exchange.headers, b"content-length") is not None
        head = request_head(
            scope["method"],
            wire_path,
            target.host,
            target.authorization,
            exchange.headers,
            len(body) if announced else None,
        )
        started = exchange.sent_at = time.perf_counter()
        if exchange.record.overhead_ms is None:
            exchange.record.overhead_ms = exchange.ms(started)
        bodiless = scope["method"] == "HEAD"
        send = partial(
            self._upstream.send, target.origin, head, body, deadline, bodiless=bodiless
        )
        try:
            return await send()
        except Broken as broken:
            if not broken.reused:
                raise
            # An idle connection that had just been closed: nobody's fault.
            return await send()
        finally:
            spent = (time.perf_counter() - started) * 1000
            exchange.record.upstream_ms = round(spent, 3)

    async def _acquire(self, exchange: Exchange, attempt: int) -> Target:
        ask = exchange.ask(attempt, self._draw(31))
        try:
            decision = await self._chooser.decide(ask, exchange.hints.bound_ids)
        except Refusal as refusal:
            gone = isinstance(refusal, OwnerGone)
            if gone and self._may_replay(exchange) and self._rewrite(exchange):
                return await self._acquire(exchange, attempt)
            raise problem_of(refusal, ask, exchange.record.method) from None
        target = await self._chooser.find(decision)
        exchange.goes_to(decision, target.resource.account_id, attempt)
        return target

    # Replays -----------------------------------------------------------------

    def _may_replay(self, exchange: Exchange) -> bool:
        """Is this a request that its account alone can read, and another may get
        without its reasoning?"""
        bound = exchange.hints.account_bound and not exchange.replayed
        return self._limits.replays and bound

    def _rewrite(self, exchange: Exchange) -> bool:
        plain = opened(exchange.body, exchange.headers)
        body = without_reasoning(plain)
        if body is not None:
            exchange.unbind(body)
        return body is not None

    async def _answer_or_replay(
        self, exchange: Exchange, answer: Answer, send: Send
    ) -> bool:
        """A history that was replayed elsewhere before still carries the reasoning
        of the account that is gone; the one that serves it now refuses that."""
        await self._note_refusal(exchange, answer)
        if exchange.record.error_code == "invalid_encrypted_content":
            exchange.tried.pop()  # it can read the rest
            return not self._rewrite(exchange) and await self._passed_on(exchange, send)
        return await self._passed_on(exchange, send)

    async def _passed_on(self, exchange: Exchange, send: Send) -> bool:
        await self._pass_on(exchange, send)
        return True

    # Failed attempts ---------------------------------------------------------

    def _note_error(self, exchange: Exchange, error: UpstreamError) -> None:
        cause = str(error)
        if isinstance(error, TimedOut):
            # The whole request's time is up: there is none left to try again.
            self._another(exchange, Verdict(kind="fault", cause="timeout"))
            raise problems.upstream_timeout(self._limits.request_s)
        if exchange.failure is None:
            exchange.record.error_message = cause
        # A key that is missing here is this gateway's trouble, not the resource's.
        ours = isinstance(error, NoKey)
        self._another(exchange, NEUTRAL if ours else Verdict(kind="fault", cause=cause))

    async def _note_refusal(self, exchange: Exchange, answer: Answer) -> None:
        try:
            body = await _whole(answer)
        except UpstreamError as error:
            self._note_error(exchange, error)
            return
        finally:
            answer.close()
        facts = read_answer(_plain(body, answer))
        exchange.failure = Failure(answer.status, answer.headers, body)
        exchange.record.error_code = facts.error_code
        exchange.record.error_message = facts.error_message
        verdict = judge(answer.status, answer.headers, facts.error_code, _now)
        self._another(exchange, verdict)

    def _another(self, exchange: Exchange, verdict: Verdict) -> None:
        self._ledger.attempt_failed(exchange, verdict)
        exchange.judged = True
        exchange.tried.append(exchange.record.resource_id or "")

    async def _pass_on(self, exchange: Exchange, send: Send) -> None:
        """Nobody could serve: the client gets the last failure as it was."""
        failure, record = exchange.failure, exchange.record
        if failure is None:
            raise problems.upstream_unreachable(
                record.attempts, record.error_message or "no answer"
            )
        headers = downstream(failure.headers, exchange.ours())
        if failure.status == 429:
            headers = with_whole_retry_after(headers, self._limits.pause_ms)
        record.status_code = failure.status
        record.outcome = "failed"
        record.response_bytes = len(failure.body)
        await _send_whole(send, failure.status, headers, failure.body)

    # Ends --------------------------------------------------------------------

    async def _answer_problem(
        self, exchange: Exchange, problem: Problem, send: Send
    ) -> None:
        record = exchange.record
        record.outcome = "failed"
        record.status_code = problem.status
        record.error_code = problem.ledger_code
        record.error_message = problem.message
        body = problem.body()
        record.response_bytes = len(body)
        if problem.ledger_code == "affinity_owner_unavailable":
            exchange.reason = problem.ledger_code
        headers: list[Header] = [
            (b"content-type", b"application/json"),
            *problem.headers,
            *exchange.ours(),
        ]
        await _send_whole(send, problem.status, headers, body)

    async def _answer_failure(
        self, exchange: Exchange, error: Exception, send: Send
    ) -> None:
        """A fault of ours: logged, said, and in the books."""
        log.error(
            "request failed",
            action="request_failed",
            request=exchange.record.id,
            exc_info=error,
        )
        if exchange.relay is not None:
            raise Torn("The proxy failed on this answer.") from error
        await self._answer_problem(exchange, problems.internal(), send)

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
            account = record.account_id or ""
            self.fallback.remember_success(home, learned, record.resource_id, account)
        self._ledger.request_ended(exchange, learned)


def _plain(body: bytes, answer: Answer) -> bytes:
    """An answer's body, opened for its facts."""
    open_ = opener(find(answer.headers, b"content-encoding"))
    return open_(body) if open_ is not None else body


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
    return [*kept, problems.retry_after(pause_ms if asked_ms is None else asked_ms)]


async def _send_whole(
    send: Send, status: int, headers: list[Header], body: bytes
) -> None:
    framed = [h for h in headers if h[0] != b"content-length"]
    framed.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": framed})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _now() -> datetime:
    return datetime.now(UTC)
