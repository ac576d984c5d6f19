"""The data plane: one request's life, attempts included. Admit, acquire, send,
relay, release; whatever happens, the release is made."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
import uuid_utils

from libs.common.contracts import Verdict
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.headers import Header, find
from libs.common.routing import (
    Ask,
    Decision,
    NoCapacity,
    NoResources,
    OwnerGone,
    OwnerLimited,
    RoutingFunctions,
    UnknownPool,
    digest,
)
from libs.common.verdicts import judge, of_failed_response
from services.gateway import problems
from services.gateway.answers import read_answer
from services.gateway.directory import Directory, Target
from services.gateway.failover import retried
from services.gateway.fallback import Fallback
from services.gateway.headers import downstream, request_head
from libs.common.hints import Hints, read_hints
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
from services.gateway.outcomes import NEUTRAL, Ledger, Record, lease_head
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


@dataclass(slots=True)
class Failure:
    """The last failed attempt, whole: passed on when nobody else can serve."""

    status: int
    headers: list[Header]
    body: bytes


class Exchange:
    """One request under way: what came in, what was decided, what is known."""

    def __init__(self, scope: Scope, gateway_id: str) -> None:
        self.began = time.perf_counter()
        self.scope = scope
        self.headers: list[Header] = scope["headers"]
        self.body = b""
        self.path = b""
        self.hints = Hints()
        self.accepted = False
        self.tried: list[str] = []
        self.reason = ""
        self.failure: Failure | None = None
        self.relay: Relay | None = None
        self.verdict = NEUTRAL
        self.trial = False  # the current attempt is a half-open trial
        self.stalled = False  # the client did not read its answer in time
        self.judged = False  # the current attempt's verdict was sent already
        self.sent_at: float | None = None
        self.bound: tuple[str, ...] = ()
        self.record = Record(
            id=str(uuid_utils.uuid7()),
            created_at_ms=int(time.time() * 1000),
            method=scope["method"],
            path=scope["path"],
            gateway_id=gateway_id,
        )

    def ms(self, until: float | None = None) -> float:
        """Milliseconds since the request came."""
        end = time.perf_counter() if until is None else until
        return round((end - self.began) * 1000, 3)

    def ours(self) -> list[Header]:
        """The headers that tell the client what we did."""
        record = self.record
        headers = [
            (b"x-proxy-request-id", record.id.encode()),
            (b"x-proxy-attempts", b"%d" % record.attempts),
        ]
        if record.resource_id:
            headers.append((b"x-proxy-resource-id", record.resource_id.encode()))
        if self.reason:
            headers.append((b"x-proxy-reason", self.reason.encode()))
        return headers


class DataPlane:
    """Serves `/v1/*`, an ASGI application."""

    def __init__(
        self,
        gateway_id: str,
        limits: Limits,
        routing: RoutingFunctions,
        directory: Directory,
        upstream: UpstreamClient,
        ledger: Ledger,
    ) -> None:
        self._gateway_id = gateway_id
        self._limits = limits
        self._routing = routing
        self._directory = directory
        self._upstream = upstream
        self._ledger = ledger
        self._fallback = Fallback(directory)
        self._draw: Callable[[int], int] = random.getrandbits
        self.active: set[str] = set()  # requests under way

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, self._gateway_id)
        presence: Presence | None = None
        self.active.add(exchange.record.id)
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
            self.active.discard(exchange.record.id)
            self._settle(exchange)

    # Admission ---------------------------------------------------------------

    async def _admit(self, exchange: Exchange, receive: Receive) -> None:
        """Read the request and take it into the ledger's books."""
        scope, record = exchange.scope, exchange.record
        if scope["method"] in _REFUSED_METHODS:
            raise problems.method_not_allowed(scope["method"])
        exchange.path = upstream_path(scope["raw_path"])
        exchange.body = await read_body(
            receive, exchange.headers, self._limits.body_bytes
        )
        plain = opened(exchange.body, exchange.headers)
        exchange.hints = hints = read_hints(exchange.path, exchange.headers, plain)
        exchange.bound = tuple(digest(i) for i in hints.bound_ids)
        record.request_bytes = len(exchange.body)
        record.model = hints.model
        record.session_id = hints.session_id
        record.session_name = hints.session_name
        record.pool_id = hints.pool_id
        record.previous_response_id = hints.previous_response_id
        exchange.accepted = True

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
                if exchange.failure is None or gone:
                    raise
                break
            resource_id = target.resource.id
            self._fallback.began(resource_id)
            try:
                if await self._attempt(exchange, target, deadline, send):
                    return
            finally:
                self._fallback.ended(resource_id)
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
        if retried(answer.status):
            await self._note_refusal(exchange, answer)
            return False
        exchange.failure = None
        relay = exchange.relay = Relay(answer, exchange.ours())
        if exchange.trial and answer.status < 300:
            # It works: others need not wait until this answer has ended.
            self._ledger.trial_begun_well(exchange.record)
        try:
            await relay.run(send)
        finally:
            answer.close()
        return True

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
        try:
            return await self._upstream.send(
                target.origin, head, body, deadline, bodiless=scope["method"] == "HEAD"
            )
        finally:
            spent = (time.perf_counter() - started) * 1000
            exchange.record.upstream_ms = round(spent, 3)

    async def _acquire(self, exchange: Exchange, attempt: int) -> Target:
        record, hints = exchange.record, exchange.hints
        lease = _lease_head(record)
        ask = Ask(
            request_id=record.id,
            decision_id=str(uuid_utils.uuid7()),
            attempt=attempt,
            gateway_id=self._gateway_id,
            pool_id=hints.pool_id,
            session_id=hints.session_id,
            bound=exchange.bound,
            account_bound=hints.account_bound,
            tried=tuple(exchange.tried),
            lease=lease,
            draw=self._draw(31),
        )
        decision = await self._decide(ask, exchange)
        record.attempts = attempt
        target = await self._find(decision)
        exchange.reason = decision.reason
        exchange.judged = False
        exchange.trial = decision.trial
        record.resource_id = target.resource.id
        record.account_id = target.resource.account_id
        return target

    async def _decide(self, ask: Ask, exchange: Exchange) -> Decision:
        try:
            return await self._routing.acquire(ask)
        except (RedisAway, NoCatalogue):
            return self._decide_alone(ask)
        except UnknownPool as unknown:
            raise problems.unknown_pool(ask.pool_id or "", unknown.pools) from None
        except NoResources:
            raise problems.no_resources() from None
        except NoCapacity as none:
            raise problems.no_capacity(none.retry_after_ms) from None
        except OwnerLimited as limited:
            raise problems.owner_limited(limited.retry_after_ms) from None
        except OwnerGone:
            exchange.reason = "affinity_owner_unavailable"
            raise problems.owner_unavailable(
                method=exchange.record.method, encrypted=ask.account_bound
            ) from None

    def _decide_alone(self, ask: Ask) -> Decision:
        """Redis is away: choose by what this gateway knows."""
        if not self._directory.known:
            raise problems.not_ready()
        session = digest(ask.session_id) if ask.session_id else None
        try:
            decision, event = self._fallback.choose(ask, session)
        except UnknownPool as unknown:
            raise problems.unknown_pool(ask.pool_id or "", unknown.pools) from None
        except NoResources:
            raise problems.no_resources() from None
        except NoCapacity as none:
            raise problems.no_capacity(none.retry_after_ms) from None
        self._ledger.decided_alone(ask.decision_id, event)
        return decision

    async def _find(self, decision: Decision) -> Target:
        try:
            target = await self._directory.find(decision.resource_id, decision.version)
        except (RedisAway, NoCatalogue):
            target = self._directory.targets.get(decision.resource_id)
        if target is None:
            raise problems.no_capacity(1000)
        return target

    # Failed attempts ---------------------------------------------------------

    def _note_error(self, exchange: Exchange, error: UpstreamError) -> None:
        cause = str(error)
        exchange.failure = None
        if isinstance(error, TimedOut):
            # The whole request's time is up: there is none left to try again.
            self._another(exchange, Verdict(kind="fault", cause="timeout"))
            raise problems.upstream_timeout(self._limits.request_s)
        record = exchange.record
        record.error_message = cause
        if isinstance(error, Broken) and error.reused:
            # An idle connection that had just been closed: nobody's fault, and
            # the same resource may be asked again.
            self._ledger.attempt_failed(record, NEUTRAL)
            exchange.judged = True
            return
        if isinstance(error, NoKey):
            # This gateway's trouble, not the resource's.
            self._another(exchange, NEUTRAL)
            return
        self._another(exchange, Verdict(kind="fault", cause=cause))

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
        self._ledger.attempt_failed(exchange.record, verdict)
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
            headers = _with_whole_retry_after(headers)
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
        """Close the books on a request: exactly one event, and its lease gone."""
        if not exchange.accepted:
            return
        record = exchange.record
        learned: tuple[str, ...] = ()
        record.latency_ms = exchange.ms()
        if exchange.relay is not None:
            try:
                learned = self._note_answer(exchange, exchange.relay)
            except Exception:
                # Whatever an answer holds: the books are closed on it.
                log.exception("odd answer", action="odd_answer", request=record.id)
        if record.outcome is None:
            record.outcome = "failed"
        verdict = None if exchange.judged else exchange.verdict
        self._ledger.request_ended(record, verdict, learned)

    def _note_answer(self, exchange: Exchange, relay: Relay) -> tuple[str, ...]:
        record = exchange.record
        record.status_code = relay.status
        record.response_bytes = relay.bytes_out
        record.transport = "sse" if relay.streams else "http"
        record.error_code = record.error_message = None
        if relay.first_token_at is not None:
            record.first_token_ms = exchange.ms(relay.first_token_at)
        facts = relay.facts()
        record.take(facts)
        if exchange.stalled:
            # The client's doing: it says nothing of the resource.
            record.outcome, record.error_code = "failed", "client_stalled"
        else:
            record.outcome = _outcome(record, relay)
            exchange.verdict = _verdict(record, relay)
        if relay.status >= 400:
            return ()
        minted = set(facts.minted) | (
            {facts.response_id} if facts.response_id else set()
        )
        learned = tuple(digest(i) for i in minted)
        home = learned
        if record.session_id and record.outcome == "completed":
            home += (digest(record.session_id),)
        self._fallback.remember(home, record.resource_id or "")
        return learned


def _lease_head(record: Record) -> bytes:
    """What the reaper tells of the request should this gateway die: all but the
    attempt and its resource, which the function adds."""
    current = record.resource_id, record.account_id, record.attempts
    record.resource_id = record.account_id = None
    record.attempts = 0
    head = lease_head(record)
    record.resource_id, record.account_id, record.attempts = current
    return head


def _outcome(record: Record, relay: Relay) -> str:
    """A client that leaves after the terminal event has completed."""
    if relay.terminal is not None:
        return "failed" if relay.terminal in ("failed", "error") else "completed"
    if record.outcome == "cancelled":
        return "cancelled"
    if relay.status >= 400 or relay.torn:
        return "failed"
    return "completed"


def _verdict(record: Record, relay: Relay) -> Verdict:
    """What an answer that was relayed says of its resource, by its end."""
    if relay.torn:
        return Verdict(kind="fault", cause="broke off")
    if relay.status >= 400 or record.outcome == "cancelled":
        return NEUTRAL
    if relay.terminal in ("failed", "error"):
        return of_failed_response(record.error_code)
    return Verdict(kind="ok", latency_ms=record.upstream_ms)


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


def _with_whole_retry_after(headers: Sequence[Header]) -> list[Header]:
    """Every 429 leaves with an integer Retry-After: Codex dies without one."""
    value = find(headers, b"retry-after")
    if value is not None and value.isdigit():
        return list(headers)
    verdict = judge(429, headers, None, _now)
    kept = [header for header in headers if header[0] != b"retry-after"]
    return [*kept, problems.retry_after(verdict.cooldown_ms or 1000)]


async def _send_whole(
    send: Send, status: int, headers: list[Header], body: bytes
) -> None:
    framed = [h for h in headers if h[0] != b"content-length"]
    framed.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": framed})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _now() -> datetime:
    return datetime.now(UTC)
