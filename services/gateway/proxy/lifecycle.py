"""One request or socket turn, from admission to settlement, as a state machine. Pure.

HTTP (`proxy/exchange.py`) and WebSocket (`websocket/turns.py`) share it:

    ARRIVED -> ADMITTED -> ACQUIRED -> SENT -> RELAYED -> SETTLED
                  ^                      |
                  +----- retry ----------+

Each step may go straight to SETTLED."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from libs.common.bodies.hints import Hints
from libs.common.contracts.events import Cause, Outcome
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import Targets
from libs.common.routing.types import (
    Ask,
    Decision,
    Lease,
    Release,
    digest,
    model_digest,
)
from libs.common.upstream_answers.verdicts import Verdict, judge
from services.gateway.content.own_headers import own_headers
from services.gateway.content.response_facts import Facts
from services.gateway.errors import Problem, upstream_timeout, upstream_unreachable
from services.gateway.ledger.lease_head import lease_head
from services.gateway.ledger.record import NEUTRAL, lease_record, request_event
from services.gateway.proxy.context import RequestContext
from services.gateway.proxy.outcome import Relayed, outcome_of, take_facts, verdict_of
from services.gateway.proxy.retry import (
    cause_of,
    gives_way,
    is_withheld,
    next_step,
    waiting_helps,
    with_sooner_wait,
)
from services.gateway.proxy.steps import (
    ACQUIRE,
    ACQUIRED,
    ADMITTED,
    ANSWER,
    ARRIVED,
    READ,
    RELAY,
    RELAYED,
    SENT,
    SETTLED,
    Failure,
    Next,
    Phase,
)
from services.gateway.upstream.errors import UpstreamError

UNDECIDED: Final = Decision("", "", "")
# Found sooner than imported names.
_NEUTRAL: Final = NEUTRAL
_request_event: Final = request_event
_COMPLETED: Final = Outcome.COMPLETED.value
_OWNER_GONE: Final = "affinity_owner_unavailable"


class Lifecycle(RequestContext):
    """Decides what happens next; its callers do the IO and report back. Holds no
    socket, clock or client. Other modules read its fields and never write them.

    Times are seconds of `time.perf_counter`."""

    # Most requests never set these. As class attributes they take no time.
    phase: Phase = ARRIVED
    socket = ""  # the resource that the WebSocket of a turn leads to
    turn = ""  # the letters of `Ask.turn`
    decision = UNDECIDED  # of the current attempt
    tried: tuple[str, ...] = ()  # resources that failed
    cause = ""  # why the previous attempt failed, as a `Cause`
    judged = False  # the current attempt's verdict was sent
    verdict = _NEUTRAL  # of the current attempt
    sent_at = 0.0
    failure: Failure | None = None  # that the client gets if nothing else comes
    problem: Problem | None = None
    limits_in: Sequence[Header] = ()  # headers of the current attempt's answer
    error_status: int | None  # of the last attempt's answer; unset until one fails

    def admit(
        self,
        path: bytes,
        hints: Hints,
        principal: Principal | None,
        alias: Targets | None = None,
    ) -> None:
        """Take the request in. Raises a `Problem` when its proxy key does not allow the
        pool or the model; the request gets a row even then."""
        self.phase = ADMITTED
        self.take(path, hints, principal, alias)

    # Attempts ----------------------------------------------------------------

    def ask(self, attempt: int, decision_id: str, draw: int) -> Ask:
        """What routing is asked for an attempt; the first one is 1."""
        record, hints = self.record, self.hints
        # Positional: keywords double the cost.
        return Ask(
            self.id,
            decision_id,
            attempt,
            self.gateway_id,
            hints.pool_id,
            hints.session_id,
            self.session,
            model_digest(hints.model),
            self.bound,
            hints.account_bound and not self.replayed,
            self.tried,
            record.resource_id or "",
            (attempt == 1 and self.head) or lease_head(record),
            draw,
            False,  # SQL was not asked
            self.replayed,
            self.cause,
            self.asker,
            self.tokens,
            self.socket,
            self.turn,
            None,
            None,
            self.quota if self.left is None else None,
            str(self.may_use) if self.may_use else "0",
        )

    def acquired(self, decision: Decision, account_id: str, attempt: int) -> None:
        """The request holds a lease."""
        self.decision, self.problem = decision, None
        self.judged, self.verdict, self.limits_in = False, _NEUTRAL, ()
        self.phase = ACQUIRED
        record = self.record
        quota = self.quota
        if quota is not None and self.left is None:  # later attempts are not asked for
            self.left = left = decision.left
            heard = quota.heard
            if heard is not None and left:
                heard.left = left
                heard.tokens = heard.nanos = 0
        record.attempts = attempt
        record.resource_id = decision.resource_id
        record.account_id = account_id

    def refused(self, problem: Problem, *, first: bool) -> Next:
        """Routing has no resource for the next attempt. After a failed attempt the
        client gets the upstream's error, unless the problem tells it more."""
        gone = problem.ledger_code == _OWNER_GONE
        stale = self.cause == Cause.STALE_CONNECTION  # the upstream said nothing
        if first or gone or stale or waiting_helps(self.failure, problem.status):
            self.problem = problem
        return ANSWER

    def sent(self, now: float) -> None:
        """The request goes upstream now."""
        self.phase, self.sent_at = SENT, now
        record = self.record
        if record.overhead_ms is None:
            began = self.began + self.queued_s
            record.overhead_ms = int((now - began) * 1e6) / 1000

    def heard(self, now: float) -> None:
        """The upstream answered, or failed to."""
        self.record.upstream_ms = int((now - self.sent_at) * 1e6) / 1000

    def answered(self, status: int) -> Next:
        """The head of an answer has arrived."""
        if status < 400 or self.request.method == "HEAD":
            self.failure = None
            return RELAY
        return READ

    def failed(self, error: UpstreamError, limit_s: float = 0.0) -> Next:
        """The attempt got no answer. `limit_s`: how long a request may take."""
        cause, self.error_status = str(error), None
        if error.reused:
            # The same resource may be tried again: the connection is to blame.
            self.verdict, self.cause = NEUTRAL, Cause.STALE_CONNECTION
            self.phase = ADMITTED
            return ACQUIRE
        if error.ends_request:
            self.another(Verdict(kind="fault", cause="timeout"), error.cause)
            self.problem = upstream_timeout(limit_s)
            return ANSWER
        if gives_way(self.failure, error.cause):
            self.failure = None
        if self.failure is None:
            self.record.error_code, self.record.error_message = None, cause
        verdict = NEUTRAL if error.is_ours else Verdict(kind="fault", cause=cause)
        self.another(verdict, error.cause)
        if error.sent and not self.may_repeat:
            self.problem = upstream_unreachable(self.record.attempts, cause)
            return ANSWER
        return ACQUIRE

    def unopened(self, error: UpstreamError) -> Next:
        """The attempt got no socket. What an earlier upstream said counts no more."""
        self.failure = None
        return self.failed(error)

    def rejected(
        self, failure: Failure, facts: Facts, now: Callable[[], datetime]
    ) -> Next:
        """An error was read whole."""
        status, code = failure.status, facts.error_code
        verdict = judge(status, failure.headers, code, now, facts.error_message)
        failure.cause = cause_of(status, verdict, code)
        self.error_status = status
        unanswered = bool(self.tried) and self.cause != Cause.NO_KEY
        if not is_withheld(failure, self.failure, unanswered=unanswered):
            self.failure = with_sooner_wait(self.failure, failure, now)
            self.record.error_code = code
            self.record.error_message = facts.error_message
        step = next_step(status, code, account_bound=self.account_bound)
        if step is not ANSWER:
            self.limits_in = failure.headers if status == 429 else ()
            self.another(verdict, failure.cause)
        return step

    def told_limits(self, headers: Sequence[Header]) -> None:
        """The headers of the current attempt's answer may name limits."""
        self.limits_in = headers

    def another(self, verdict: Verdict, cause: str) -> None:
        """The attempt failed, with this verdict on its resource."""
        self.verdict, self.cause = verdict, cause
        self.phase = ADMITTED
        self.tried = (*self.tried, self.record.resource_id or "")

    def reported(self) -> None:
        """The current attempt's verdict was sent."""
        self.judged = True

    def elsewhere(self, cause: str) -> None:
        """The next decision is made for another reason than a failure."""
        self.cause = cause

    def readable_again(self) -> None:
        """The last resource can read the rewritten request: it may be tried again."""
        self.tried = self.tried[:-1]

    # The end -----------------------------------------------------------------

    def relayed(self, answer: Relayed, *, stalled: bool = False) -> None:
        """Take in an answer that was relayed over HTTP, as far as it came. `stalled`:
        the client did not read it in time."""
        record = self.record
        record.status_code, record.response_bytes = answer.status, answer.bytes_out
        if answer.streams:
            record.transport = "sse"
        if record.error_code or record.error_message:  # of an earlier attempt
            record.error_code = record.error_message = None
        if answer.first_token_at is not None:
            record.first_token_ms = self.ms(answer.first_token_at)
        facts = answer.facts()
        take_facts(record, facts)
        if answer.status < 400:
            record.minted = facts.ids
        if stalled:
            # The client's fault: it says nothing about the resource.
            record.outcome, record.error_code = "failed", "client_stalled"
        else:
            record.outcome = outcome_of(record.outcome, answer)
            self.verdict = verdict_of(record, answer)
        self.phase = RELAYED

    def answers(self, problem: Problem, size: int | None = None) -> None:
        """The client gets an error of the gateway, over HTTP with `size` bytes."""
        self.problem = problem
        record = self.record
        if size is not None:
            record.response_bytes = size
        record.outcome = "failed"
        record.status_code = problem.status
        record.error_code, record.error_message = problem.ledger_code, problem.message

    def passes_on(self) -> Failure:
        """The client gets an upstream's error. Raises a `Problem` if there is none."""
        failure, record = self.failure, self.record
        if failure is None:
            raise upstream_unreachable(
                record.attempts, record.error_message or "no answer"
            )
        record.status_code = failure.status
        record.outcome = "failed"
        record.response_bytes = len(failure.body)
        return failure

    def cancelled(self) -> None:
        """The client left."""
        self.record.outcome = "cancelled"

    def interrupted(self, status: int | None, code: str) -> None:
        """The gateway stops. `status`: of its answer, if it gives one."""
        record = self.record
        record.outcome, record.error_code = "interrupted", code
        record.status_code = status or record.status_code

    def ended(self, now: float, now_ms: int, limits: str = "") -> Release:
        """Close the record: the release of the lease, with the request event. `now_ms`
        is Unix time. `limits`: of the account, as the answer named them."""
        record = self.record
        record.latency_ms = int((now - self.began) * 1e6) / 1000
        record.completed_at_ms = now_ms
        outcome = record.outcome = record.outcome or "failed"
        self.phase = SETTLED
        return self.release_with(
            None if self.judged else self.verdict,
            self.session if outcome == _COMPLETED else "",
            tuple([digest(id_) for id_ in record.minted]),
            _request_event(record),
            limits,
        )

    def released(self, verdict: Verdict, limits: str = "") -> Release:
        """The verdict on the current attempt; the request goes on."""
        return self.release_with(verdict, "", (), None, limits)

    # What others read --------------------------------------------------------

    @property
    def reason(self) -> str:
        """Why the current attempt goes where it goes."""
        if self.problem is not None and self.problem.ledger_code == _OWNER_GONE:
            return _OWNER_GONE
        return self.decision.reason

    def lease(self) -> Lease | None:
        """The lease that this request should hold now."""
        record = self.record
        if record.resource_id is None or self.phase is SETTLED:
            return None
        return Lease(record.id, record.resource_id, lease_record(record))

    @property
    def headers_of_ours(self) -> list[Header]:
        """The gateway's own headers of the answer."""
        r = self.record
        own = own_headers(r.id, r.attempts, r.resource_id, self.reason)
        return own + self.limits_of_key
