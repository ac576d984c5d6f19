"""HTTP requests to `/v1/*`: does the IO that their lifecycles ask for."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from libs.common.bodies.hints import Hints, quick_hints
from libs.common.bodies.scanner import Scan
from libs.common.contracts.verdicts import judge
from libs.common.headers import Header, find
from libs.common.proxy_keys import Principal
from libs.common.routing.accounts import unnamed
from libs.common.routing.types import Owner, digest
from services.gateway import errors, metrics
from services.gateway.auth import isolation
from services.gateway.auth.authenticator import UnknownKey
from services.gateway.auth.limits import Gate
from services.gateway.capture.recorder import Capture
from services.gateway.content.headers import downstream, request_head
from services.gateway.content.key_masking import without_key
from services.gateway.content.response_facts import read_answer, read_event
from services.gateway.errors import Problem
from services.gateway.proxy.attempts import Attempts
from services.gateway.proxy.body_reader import Reader
from services.gateway.proxy.in_flight import InFlight
from services.gateway.proxy.lifecycle import (
    ARRIVED,
    DONE,
    READ,
    Failure,
    Lifecycle,
    Next,
)
from services.gateway.proxy.paths import upstream_path
from services.gateway.proxy.relay import Relay, Torn
from services.gateway.routing.catalogue import Target
from services.gateway.routing.model_alias import with_alias_model
from services.gateway.routing.selector import Chooser
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request
from services.gateway.upstream.client import (
    Answer,
    Broken,
    NoKey,
    UpstreamClient,
    UpstreamError,
)

log = structlog.get_logger()

CLIENT_GRACE_S = 5.0  # for the client to read the last bytes of an answer
FAILURE_S = 5.0  # for the body of an upstream's error
# TRACE echoes what it got, the upstream key included; CONNECT asks for a tunnel.
_REFUSED_METHODS = frozenset({"TRACE", "CONNECT"})
JSON_TYPE: Header = (b"content-type", b"application/json")
LARGEST_FAILURE = 1_048_576  # bytes of an upstream's error that are passed on


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take."""

    body_bytes: int
    attempts: int
    request_s: float
    pause_ms: int = 30_000  # a resource's cooldown when its upstream names no time
    replays: bool = False  # PROXY_REPLAY_WITHOUT_REASONING


class DataPlane:
    """Serves `/v1/*`."""

    def __init__(
        self,
        limits: Limits,
        gate: Gate,
        selector: Chooser,
        in_flight: InFlight,
        upstream: UpstreamClient,
        reader: Reader,
    ) -> None:
        self.limits = limits
        self.gate = gate
        self.selector = selector
        self.in_flight = in_flight
        self.upstream = upstream
        self.reader = reader
        self.attempts = Attempts(
            selector, in_flight, reader, limits.attempts, replays=limits.replays
        )
        self.now = asyncio.get_running_loop().time
        self.under_way: set[HttpExchange] = set()

    def serve(
        self, request: Request, connection: Connection
    ) -> Coroutine[Any, Any, None]:
        return HttpExchange(self, request, connection).run()

    def check(self, now: float) -> None:
        """Give up clients that do not read their answers. The upstream's part ends at
        the deadline. What remains after it waits for the client, and must not hold its
        lease for ever."""
        for exchange in list(self.under_way):
            if now > exchange.deadline + CLIENT_GRACE_S:
                exchange.stop(stalled=True)

    def interrupt(self) -> None:
        """End all requests under way: the gateway stops."""
        for exchange in list(self.under_way):
            exchange.stop()


class HttpExchange:
    """One request and its answer."""

    __slots__ = (
        "_answer", "_capture", "_connection", "_interrupted", "_plane", "_relay",
        "_stalled", "deadline", "life"
    )  # fmt: skip

    def __init__(
        self, plane: DataPlane, request: Request, connection: Connection
    ) -> None:
        self._plane = plane
        self._connection = connection
        self._capture: Capture | None = None
        self._relay: Relay | None = None
        # Status, headers and body of an answer that is known as a whole.
        self._answer: tuple[int, list[Header], bytes] | None = None
        self._stalled = self._interrupted = False
        self.deadline = plane.now() + plane.limits.request_s
        self.life = plane.in_flight.arrived(request)

    async def run(self) -> None:  # noqa: C901 - all ends of a request in one place
        """Serve the request. The client gets the end of its answer after the
        settlement: its next request may build on it."""
        plane, life, connection = self._plane, self.life, self._connection
        try:
            plane.under_way.add(self)
            try:
                if not self._admits_at_once():
                    await self._admits()
                if await plane.attempts.run(life, self._attempt) is not DONE:
                    self._answer_error()
            except BaseException as error:
                if not self._takes(error):
                    raise
            finally:
                self._note_answer()
                plane.in_flight.settle(life, self._capture)
            relay = self._relay
            if relay is not None:
                if relay.finish() and not connection.gone:
                    await relay.rest()
            elif self._answer is not None:
                connection.send_whole(*self._answer)
        except (Torn, asyncio.CancelledError) as error:
            if not self._is_expected(error):
                raise
        finally:
            plane.under_way.discard(self)
            if self._relay is not None and not self._relay.over:
                self._relay.close()
            connection.over()

    def _takes(self, error: BaseException) -> bool:
        """Turn an error into an answer, if it can be one. False when it has to be
        raised."""
        match error:
            case Problem():
                self._answer_problem(error)
            case Torn():
                log.debug("answer cut", action="answer_cut", cause=str(error))
            case asyncio.CancelledError():
                return self._given_up()
            case Exception():
                self._answer_failure(error)
            case _:
                return False
        return True

    def _is_expected(self, error: BaseException) -> bool:
        """Did it end an answer whose request was settled?"""
        if isinstance(error, Torn):
            log.debug("answer cut", action="answer_cut", cause=str(error))
            return True
        return self._connection.gone or self._interrupted or self._stalled

    # Admission ---------------------------------------------------------------

    def _admits_at_once(self) -> bool:
        """Admit the request, if nothing has to be awaited for that, as of most.
        Raises a `Problem`."""
        plane, life = self._plane, self.life
        request = life.request
        try:
            principal = plane.gate.admit(life.headers)
        except UnknownKey:
            return False
        if request.method in _REFUSED_METHODS:
            raise errors.method_not_allowed(request.method)
        path = upstream_path(request.path)
        if request.coding is not None or (principal is not None and principal.limited):
            return False
        isolated = principal is not None or plane.gate.has_keys
        hints = quick_hints(path, life.headers, life.body, isolated)
        if hints is None:
            return False
        self._admit(path, principal, hints, life.body, None)
        return True

    async def _admits(self) -> None:
        """The same, with all that may have to be awaited."""
        plane, life = self._plane, self.life
        request = life.request
        principal = await plane.gate.enter(life.headers)
        if request.method in _REFUSED_METHODS:
            raise errors.method_not_allowed(request.method)
        path = upstream_path(request.path)
        isolated = principal is not None or plane.gate.has_keys
        read = await plane.reader.read(
            path, life.headers, life.body, request.coding, isolate=isolated
        )
        self._admit(path, principal, read.hints, read.plain, read.scan)
        await plane.gate.count(principal)

    def _admit(
        self,
        path: bytes,
        principal: Principal | None,
        hints: Hints,
        plain: bytes,
        scan: Scan | None,
    ) -> None:
        """Take the request into the ledger. Raises a `Problem`."""
        plane, life = self._plane, self.life
        request, in_flight = life.request, plane.in_flight
        capturer = in_flight.ledger.capturer
        self._capture = capturer.begin(
            life.body, (request.content_type, request.coding)
        )
        ways = plane.selector.ways
        way = ways.get(hints.model or "") if ways else None
        life.admit(path, hints, principal, way)
        if way is not None:
            opened = plain is not life.body
            life.rewrite(with_alias_model(plain, way, scan), plain=opened)
        if principal is not None or plane.gate.has_keys:
            self._isolate(plain)
        in_flight.admitted(life)

    def _isolate(self, plain: bytes) -> None:
        """Note which ids the request must be allowed to name. Raises a `Problem`."""
        life = self.life
        request, hints, route = life.request, life.hints, None
        tenant = life.asker.tenant
        strict = self._plane.gate.strict
        if strict:
            usual = isolation.plain_asker(tenant, hints, request, life.path)
            if usual is not None:
                life.names(None, usual, ())
                return
            route = isolation.route_of(request.method, life.path)
            isolation.check_body(route, hints, request, plain)
        asker, ids = isolation.asker_of(tenant, hints, route, strict=strict)
        life.names(route, asker, ids)

    # Attempts ----------------------------------------------------------------

    async def _attempt(self, life: Lifecycle, target: Target) -> Next:
        """Send the request to a resource and relay its answer."""
        plane = self._plane
        try:
            if not target.authorization:
                raise NoKey
            request, body, headers = life.request, life.body, life.headers
            announced = body or find(headers, b"content-length") is not None
            head = request_head(
                request.method,
                target.path + life.path + request.query,
                target.host,
                target.authorization,
                headers,
                len(body) if announced else None,
            )
            send, bodiless = plane.upstream.send, request.method == "HEAD"
            life.sent(time.perf_counter())
            try:
                answer = await send(
                    target.origin, head, body, self.deadline, bodiless=bodiless
                )
            except Broken as broken:
                if not broken.reused:
                    raise
                # The upstream closed an idle connection just now.
                answer = await send(
                    target.origin, head, body, self.deadline, bodiless=bodiless
                )
            finally:
                life.heard(time.perf_counter())
        except UpstreamError as error:
            return life.failed(error, plane.limits.request_s)
        if unnamed(target.resource):
            plane.in_flight.learn_account(target, answer.headers)
        if life.answered(answer.status) is READ:
            return await self._read_failure(answer, target)
        relay = self._begin_relay(answer, target)
        await relay.run(life.our_lines())
        return DONE

    def _begin_relay(self, answer: Answer, target: Target) -> Relay:
        plane, life = self._plane, self.life
        relay = self._relay = Relay(
            answer, self._connection, self._capture, target.sent, plane.reader.run
        )
        if life.hints.background and relay.streams:
            # Others may ask for it while this answer goes on.
            relay.on_created = self._learn_early
        if life.decision.trial and answer.status < 300:
            plane.in_flight.works_again(life)
        return relay

    def _learn_early(self, created: bytes) -> None:
        record, in_flight = self.life.record, self._plane.in_flight
        learned = tuple([digest(id_) for id_ in read_event(created)[1].ids])
        tenant = self.life.asker.tenant
        owner = Owner(record.resource_id or "", record.account_id or "", tenant)
        in_flight.offline.remember_success("", learned, *msgspec.structs.astuple(owner))
        in_flight.ledger.minted_early(learned, owner)

    async def _read_failure(self, answer: Answer, target: Target) -> Next:
        status, life = answer.status, self.life
        try:
            body = await _whole(answer)
        except UpstreamError as error:
            return life.failed(error, self._plane.limits.request_s)
        finally:
            answer.close()
        headers, body, plain = without_key(status, answer.headers, body, target.sent)
        return life.rejected(Failure(status, headers, body), read_answer(plain), _now)

    # The end -----------------------------------------------------------------

    def _answer_error(self) -> None:
        """No resource could serve: the client gets the last error as it was, or one of
        the gateway. Raises that `Problem`."""
        problem = self.life.problem
        if problem is not None:
            raise problem
        failure = self.life.passes_on()
        headers = downstream(failure.headers, self.life.ours())
        if failure.status == 429:
            headers = with_whole_retry_after(headers, self._plane.limits.pause_ms)
        if self._capture is not None:
            self._capture.whole(failure.headers, failure.body)
        self._answer = failure.status, headers, failure.body

    def _answer_problem(self, problem: Problem) -> None:
        life = self.life
        if life.phase is ARRIVED:
            metrics.count_refused(problem.ledger_code)
        body = problem.body()
        life.answers(problem, len(body))
        headers = [JSON_TYPE, *problem.headers, *life.ours()]
        if self._capture is not None:
            self._capture.whole(headers, body)
        self._answer = problem.status, headers, body

    def _answer_failure(self, error: Exception) -> None:
        """A fault of the gateway."""
        log.error(
            "request failed",
            action="request_failed",
            request=self.life.record.id,
            exc_info=error,
        )
        if not self._connection.began:
            self._answer_problem(errors.internal())

    def _note_answer(self) -> None:
        if self._relay is None:
            return
        try:
            self.life.relayed(self._relay, stalled=self._stalled)
        except Exception:
            # Whatever an answer holds, its request is settled.
            request = self.life.record.id
            log.exception("answer not understood", action="odd_answer", request=request)

    # Cancellation ------------------------------------------------------------

    def stop(self, *, stalled: bool = False) -> None:
        """End it. `stalled`: the client did not read its answer in time; else the
        gateway stops."""
        task = self._connection.task
        if task is not None:
            self._stalled = self._stalled or stalled
            self._interrupted = self._interrupted or not stalled
            task.cancel()

    def _given_up(self) -> bool:
        """Note why the task was canceled. False when neither the client nor the
        gateway is the reason."""
        life, connection = self.life, self._connection
        if connection.gone:
            life.cancelled()
        elif self._interrupted:
            self._say_restart()
        else:
            life.cancelled()
        return connection.gone or self._stalled or self._interrupted

    def _say_restart(self) -> None:
        problem, status = errors.restarts(), None
        if self._relay is not None:
            self._relay.interrupt("This gateway restarts; ask again.")
        elif not self._connection.began:
            status = problem.status
            headers = [JSON_TYPE, *problem.headers, *self.life.ours()]
            self._answer = status, headers, problem.body()
        self.life.interrupted(status, "gateway_restarts")


async def _whole(answer: Answer) -> bytes:
    """The body of an upstream's error, up to LARGEST_FAILURE bytes. Raises `Broken`
    when it does not come."""
    body = bytearray()
    try:
        async with asyncio.timeout(FAILURE_S):
            while len(body) < LARGEST_FAILURE and (chunk := await answer.next()):
                body += chunk
    except TimeoutError:
        raise Broken("its error never ended") from None
    return bytes(body)


def with_whole_retry_after(headers: Sequence[Header], pause_ms: int) -> list[Header]:
    """Every 429 leaves with an integer Retry-After: Codex fails without one. Where the
    upstream names no time, it is the resource's cooldown."""
    value = find(headers, b"retry-after")
    if value is not None and value.isdigit() and int(value) > 0:
        return list(headers)
    asked_ms = judge(429, headers, None, _now).cooldown_ms
    kept = [header for header in headers if header[0] != b"retry-after"]
    return [*kept, errors.retry_after(pause_ms if asked_ms is None else asked_ms)]


def _now() -> datetime:
    return datetime.now(UTC)
