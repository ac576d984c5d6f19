"""One HTTP request and its answer: does the IO that its lifecycle asks for, and ends
the request, however it ends: answered, failed, its client gone, the gateway stopped."""

import asyncio
from functools import partial
from typing import Final

import structlog

from libs.common.bodies.hints import Hints, quick_hints
from libs.common.bodies.scanner import Scan
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from services.gateway import errors, event_log
from services.gateway.auth.authenticator import UnknownKey
from services.gateway.capture.capture import Capture
from services.gateway.content.headers import JSON_TYPE, downstream, without_limits
from services.gateway.content.own_headers import cost_line, own_lines
from services.gateway.content.request_path import upstream_path
from services.gateway.errors import Problem
from services.gateway.proxy.failures import read_failure, with_whole_retry_after
from services.gateway.proxy.in_flight import clock
from services.gateway.proxy.lifecycle import Lifecycle
from services.gateway.proxy.relay import Relay, Torn
from services.gateway.proxy.services import NEXT_TURN, HttpServices, nothing
from services.gateway.proxy.steps import ARRIVED, DONE, READ, Next
from services.gateway.routing.target import Target
from services.gateway.server.connection import Connection
from services.gateway.server.request import Request
from services.gateway.upstream.client import Answer, NoKey, UpstreamError

log = structlog.get_logger()

# TRACE echoes what it got, the upstream key included; CONNECT asks for a tunnel.
_REFUSED_METHODS: Final = frozenset({"TRACE", "CONNECT"})


class HttpExchange:
    """One request and its answer."""

    __slots__ = (
        "_answer", "_capture", "_connection", "_interrupted", "_relay", "_services",
        "_stalled", "_under_way", "deadline", "life"
    )  # fmt: skip

    def __init__(
        self,
        services: HttpServices,
        under_way: "set[HttpExchange]",
        request: Request,
        connection: Connection,
    ) -> None:
        """`under_way` holds the exchange while it runs."""
        self._services = services
        self._under_way = under_way
        self._connection = connection
        self._capture: Capture | None = None
        self._relay: Relay | None = None
        self._answer: tuple[int, list[Header], bytes] | None = None  # known as a whole
        self._stalled = self._interrupted = False
        self.deadline = services.now() + services.limits.request_s
        self.life = services.in_flight.arrived(request)

    async def run(self) -> None:  # noqa: C901, PLR0912 - all ends in one place
        """Serve it. The answer ends after the settlement: the next may build on it."""
        services, life, connection = self._services, self.life, self._connection
        later = False
        try:
            self._under_way.add(self)
            try:
                if not self._admits_at_once():
                    await self._admits()
                if await services.attempts.run(life, self._attempt) is not DONE:
                    self._answer_error()
            except BaseException as error:
                if not self._takes(error):
                    raise
            finally:
                self._note_answer()
                services.in_flight.settle(life, self._capture)
            relay = self._relay
            if relay is None:
                if self._answer is not None:
                    connection.writer.send_whole(*self._answer)
            elif relay.over:
                later = services.when_sent(self._finish)  # the release goes out first
                if not later:
                    relay.finish()
            else:
                try:
                    if services.when_sent(nothing):
                        await NEXT_TURN
                finally:
                    more = relay.finish()
                if more and not connection.gone:
                    await relay.rest()
        except (Torn, asyncio.CancelledError) as error:
            if not self._is_expected(error):
                raise
        finally:
            if not later:
                self._end()

    def _finish(self) -> None:
        """The release was sent: end the answer."""
        try:
            if self._relay is not None:
                self._relay.finish()
        finally:
            self._end()

    def _end(self) -> None:
        self._under_way.discard(self)
        if self._relay is not None:
            self._relay.close()
        self._connection.over()

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
        if self._interrupted and self._relay is not None:
            self._relay.interrupt("This gateway restarts; ask again.")
        return self._connection.gone or self._interrupted or self._stalled

    # Admission ---------------------------------------------------------------

    def _admits_at_once(self) -> bool:
        """Admit the request, if nothing has to be awaited for that, as of most.
        Raises a `Problem`."""
        services, life, request = self._services, self.life, self.life.request
        try:
            principal = services.access.admit(request.told)
        except UnknownKey:
            return False
        if request.method in _REFUSED_METHODS:
            raise errors.method_not_allowed(request.method)
        path = upstream_path(request.path)
        if request.coding is not None:
            return False
        isolated = principal is not None or services.access.has_keys
        hints = quick_hints(path, request.told, life.body, isolated)
        if hints is None:
            return False
        self._admit(path, principal, hints, life.body, None)
        return True

    async def _admits(self) -> None:
        """The same, with all that may have to be awaited."""
        services, life, request = self._services, self.life, self.life.request
        principal = await services.access.enter(life.headers)
        if request.method in _REFUSED_METHODS:
            raise errors.method_not_allowed(request.method)
        path = upstream_path(request.path)
        isolated = principal is not None or services.access.has_keys
        read = await services.reader.read(
            path, life.headers, life.body, request.coding, isolate=isolated
        )
        self._admit(path, principal, read.hints, read.plain, read.scan)

    def _admit(
        self,
        path: bytes,
        principal: Principal | None,
        hints: Hints,
        plain: bytes,
        scan: Scan | None,
    ) -> None:
        """Take the request into the ledger. Raises a `Problem`."""
        services, life = self._services, self.life
        request, in_flight = life.request, services.in_flight
        capturer = in_flight.ledger.capturer
        self._capture = capturer.begin(
            life.body, (request.content_type, request.coding)
        )
        alias_targets = services.selector.catalogue.alias_targets
        alias = alias_targets.get(hints.model or "") if alias_targets else None
        life.admit(path, hints, principal, alias)
        if principal is not None and principal.policies:
            access, peer = services.access, self._connection.peer
            access.check_caller(principal, path, peer, life.headers)
            access.check_request(principal, request.method, path, hints, alias)
        if alias is not None:
            life.name_model(plain, scan)
        if principal is not None or services.access.has_keys:
            life.isolate(plain, strict=services.access.strict)
        in_flight.admitted(life)
        if principal is not None and principal.limited:
            at_ms = life.record.created_at_ms
            life.limit(services.access.quota_of(principal, at_ms), plain)

    # Attempts ----------------------------------------------------------------

    async def _attempt(self, life: Lifecycle, target: Target) -> Next:
        """Send the request to a resource and relay its answer."""
        services = self._services
        try:
            if not target.authorization:
                raise NoKey
            head, bodiless = life.head_for(target), life.request.method == "HEAD"
            route, by = services.upstream.route(target.origin), self.deadline
            life.sent(clock())
            try:
                connection = route.idle() or await route.free(by)
                asked = route.send(connection, head, life.body, by, bodiless=bodiless)
                try:
                    answer = await asked
                except BaseException as error:
                    route.unanswered(connection, asked, error)
                    raise
            finally:
                life.heard(clock())
        except UpstreamError as error:
            return life.failed(error, services.limits.request_s)
        if target.unnamed:
            services.in_flight.learn_account(target, answer.headers)
        if life.answered(answer.status) is READ:
            return await read_failure(life, answer, target, services.limits.request_s)
        relay = self._begin_relay(answer, target)
        r = life.record
        ours = own_lines(life.id, r.attempts, r.resource_id, life.decision.reason)
        rest = relay.start(ours, None if life.quota is None else life.limit_lines)
        if rest is not None:
            await rest
        return DONE

    def _begin_relay(self, answer: Answer, target: Target) -> Relay:
        services, life = self._services, self.life
        relay = self._relay = Relay(
            answer, self._connection, self._capture, target.sent, services.reader.run
        )
        if life.hints.background and relay.streams:
            # Others may ask for it while this answer goes on.
            relay.on_created = partial(services.in_flight.learn_early, life)
        if life.decision.trial and answer.status < 300:
            services.in_flight.works_again(life)
        return relay

    def keep_alive(self) -> None:
        """Send a comment if the client's stream was silent since the last call."""
        if self._relay is not None:
            self._relay.keep_alive()

    # The end -----------------------------------------------------------------

    def _answer_error(self) -> None:
        """No resource could serve: the client gets the last error as it was, or one of
        the gateway. Raises that `Problem`."""
        problem = self.life.problem
        if problem is not None:
            raise problem
        failure = self.life.passes_on()
        limited = self.life.quota is not None
        theirs = without_limits(failure.headers) if limited else failure.headers
        headers = downstream(theirs, self.life.headers_of_ours)
        if failure.status == 429:
            headers = with_whole_retry_after(headers, self._services.limits.pause_ms)
        if self._capture is not None:
            self._capture.whole(failure.headers, failure.body)
        self._answer = failure.status, headers, failure.body

    def _answer_problem(self, problem: Problem) -> None:
        life = self.life
        if life.phase is ARRIVED:
            event_log.refused(problem.ledger_code, problem.status, life.record.id)
        body = problem.body()
        life.answers(problem, len(body))
        headers = [JSON_TYPE, *problem.headers, *life.headers_of_ours]
        if self._capture is not None:
            self._capture.whole(headers, body)
        self._answer = problem.status, headers, body

    def _answer_failure(self, error: Exception) -> None:
        """A fault of the gateway."""
        request, action = self.life.id, "request_failed"
        log.error("request failed", action=action, request=request, exc_info=error)
        problem = errors.internal()
        if self._relay is None:
            self._answer_problem(problem)
        else:
            self.life.answers(problem)  # the client's connection breaks

    def _note_answer(self) -> None:
        relay = self._relay
        if relay is None:
            return
        if relay.limits_in:
            self.life.told_limits(relay.limits_in)
        try:
            self.life.relayed(relay, stalled=self._stalled)
            prices = self._services.selector.catalogue.prices
            if prices is not None and relay.unsent and not relay.streams:
                relay.add_line(cost_line(self.life.record.price(prices)))
        except Exception:
            # Whatever an answer holds, its request is settled.
            request = self.life.id
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
        if self._relay is not None and self._relay.whole:
            pass  # nothing was left to give up
        elif self._interrupted and not connection.gone:
            self._say_restart()
        else:
            life.cancelled()
        return connection.gone or self._stalled or self._interrupted

    def _say_restart(self) -> None:
        problem, status, life = errors.restarts(), None, self.life
        if self._relay is not None:
            self._relay.interrupt("This gateway restarts; ask again.")
        elif not self._connection.began:
            status = problem.status
            headers = [JSON_TYPE, *problem.headers, *life.headers_of_ours]
            self._answer = status, headers, problem.body()
        life.interrupted(status, "gateway_restarts")
