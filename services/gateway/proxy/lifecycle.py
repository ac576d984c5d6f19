"""One request or socket turn, from admission to settlement, as a state machine. Pure.

HTTP (`proxy/handler.py`) and WebSocket (`websocket/turns.py`) share it:

    ARRIVED -> ADMITTED -> ACQUIRED -> SENT -> RELAYED -> SETTLED
                  ^                      |
                  +----- retry ----------+

Each step may go straight to SETTLED."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

import msgspec

from libs.common.bodies.hints import Hints
from libs.common.contracts.events import Outcome, Verdict
from libs.common.contracts.verdicts import judge
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import Way, session_within
from libs.common.routing.types import (
    ANYBODY,
    Ask,
    Asker,
    Decision,
    ForeignId,
    Lease,
    Release,
    digest,
    model_digest,
    session_digest,
)
from services.gateway.auth.isolation import Route, not_found, shared_asker
from services.gateway.auth.pools import pool_for
from services.gateway.content.response_facts import Facts
from services.gateway.errors import Problem, upstream_timeout, upstream_unreachable
from services.gateway.ledger.record import (
    NEUTRAL,
    Record,
    lease_head,
    lease_record,
    request_event,
)
from services.gateway.proxy.outcome import Relayed, outcome_of, verdict_of
from services.gateway.proxy.retry import cause_of, retried
from services.gateway.routing.model_alias import check_alias
from services.gateway.server.request import Request
from services.gateway.upstream.errors import UpstreamError

_NO_HINTS = Hints()
_UNDECIDED = Decision("", "", "")
_COMPLETED = Outcome.COMPLETED.value
_OWNER_GONE = "affinity_owner_unavailable"


class Phase(IntEnum):
    """How far a request has come."""

    ARRIVED = 0  # not in the ledger: a refusal leaves no row
    ADMITTED = 1  # in the ledger; holds no lease, or that of a failed attempt
    ACQUIRED = 2  # holds a lease on a resource
    SENT = 3  # the upstream has it
    RELAYED = 4  # the answer is known; its last bytes may wait for the settlement
    SETTLED = 5  # the lease is released, the request event is written


# A name of the module is found sooner than one of an enum.
ARRIVED, ADMITTED, ACQUIRED, SENT, RELAYED, SETTLED = Phase


class Next(IntEnum):
    """What the caller of a `Lifecycle` does next."""

    ACQUIRE = 0  # try another resource
    RELAY = 1  # relay the answer
    READ = 2  # read the error whole, then call `rejected`
    ANSWER = 3  # answer with `problem`, or else with `failure`
    REWRITE = 4  # rewrite the request for another account, or else answer
    DONE = 5  # nothing


ACQUIRE, RELAY, READ, ANSWER, REWRITE, DONE = Next


@dataclass(slots=True)
class Failure:
    """The upstream's last error, whole: the client gets it when no other resource can
    serve the request."""

    status: int
    headers: list[Header]
    body: bytes


class Lifecycle:
    """Decides what happens next; its callers do the IO and report back. Holds no
    socket, clock or client. Other modules read its fields and never write them.

    Times are seconds of `time.perf_counter`, deadlines seconds of the event loop."""

    # Most requests never set these. As class attributes they cost nothing.
    phase: Phase = ARRIVED
    head = b""  # the JSON of its lease at admission
    path = b""  # below /v1
    hints = _NO_HINTS
    session = ""  # digest
    bound: tuple[str, ...] = ()  # digests of hints.bound_ids
    ids: tuple[str, ...] = ()  # bound_ids, then those of asker.further
    asker = ANYBODY
    route: Route | None = None  # with strict isolation
    principal: Principal | None = None  # None: a request without a proxy key
    way: Way | None = None  # the target of its model alias
    decision = _UNDECIDED  # of the current attempt
    tried: tuple[str, ...] = ()  # resources that failed
    cause = ""  # why the previous attempt failed, as a `Cause`
    judged = False  # the current attempt's verdict was sent
    replayed = False  # rewritten for another account
    verdict = NEUTRAL  # of the current attempt
    sent_at = 0.0
    failure: Failure | None = None
    problem: Problem | None = None

    def __init__(self, request: Request, record: Record, began: float) -> None:
        self.request = request
        self.headers = request.headers
        self.body = request.body
        self.record = record
        self.began = began

    # Admission ---------------------------------------------------------------

    def admit(
        self,
        path: bytes,
        hints: Hints,
        principal: Principal | None,
        way: Way | None = None,
    ) -> None:
        """Note what the request says, whose it is, and where its model alias leads.
        Raises a `Problem` when its proxy key does not allow the pool or the model; the
        request gets a row even then."""
        self.path, self.hints = path, hints
        record = self.record
        tenant = ""
        if principal is not None:
            self.principal = principal
            tenant = principal.tenant
            record.proxy_key_id = principal.id
            record.team_id = principal.team_id
            self.asker = shared_asker(tenant, False)
        if hints.session_id:
            self.session = session_digest(hints.session_id, tenant)
        if hints.bound_ids:
            self.ids = hints.bound_ids
            self.bound = tuple([digest(id_) for id_ in hints.bound_ids])
        record.request_bytes = len(self.body)
        record.model = hints.model
        record.session_id = hints.session_id
        record.session_name = hints.session_name
        record.pool_id = hints.pool_id
        record.previous_response_id = hints.previous_response_id
        self.phase = ADMITTED
        if way is not None:
            self.follow(way, hints.pool_id)
        elif principal is not None:
            pool = pool_for(principal, hints.pool_id)
            if pool != hints.pool_id:
                self.hints = msgspec.structs.replace(hints, pool_id=pool)
                record.pool_id = pool

    def follow(self, way: Way, asked: str | None) -> None:
        """Go where a model alias leads. `asked` is the pool that the request names.
        Raises a `Problem`."""
        self.way = way
        self.head = b""  # it named another pool
        record, hints = self.record, self.hints
        record.upstream_model = way.upstream_id
        check_alias(way, self.principal, asked)
        record.pool_id = way.pool
        self.session = session_within(hints.session_id, way.pool, self.asker.tenant)
        # The upstream limits its own model, whatever the alias is called.
        self.hints = msgspec.structs.replace(
            hints, pool_id=way.pool, model=way.upstream_id
        )

    def names(self, route: Route | None, asker: Asker, ids: tuple[str, ...]) -> None:
        """Note which ids the request must be allowed to name."""
        self.route, self.asker, self.ids = route, asker, ids

    def begin_turn(self, now: float, now_ms: int) -> None:
        """An upgrade becomes the first turn of its socket."""
        self.began = now
        self.record.created_at_ms = now_ms

    def recorded(self, head: bytes) -> None:
        """The ledger has it; `head` is the JSON of its lease."""
        self.head = head

    def rewrite(self, body: bytes, *, plain: bool) -> None:
        """Send another body. `plain`: it is not compressed any more."""
        self.body = body
        if plain:
            self.headers = [h for h in self.headers if h[0] != b"content-encoding"]

    def unbind(self, body: bytes) -> None:
        """Send a body that every account can read."""
        self.rewrite(body, plain=True)
        self.replayed = True
        self.bound = self.ids = ()
        # Whose its ids are was checked before.
        self.asker = Asker(self.asker.tenant, self.asker.strict)

    # Attempts ----------------------------------------------------------------

    def ask(self, attempt: int, decision_id: str, draw: int) -> Ask:
        """What routing is asked for an attempt; the first one is 1."""
        record, hints = self.record, self.hints
        # Positional: keywords double the cost.
        return Ask(
            record.id,
            decision_id,
            attempt,
            record.gateway_id,
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
        )

    def acquired(self, decision: Decision, account_id: str, attempt: int) -> None:
        """The request holds a lease."""
        self.decision, self.problem = decision, None
        self.judged, self.verdict = False, NEUTRAL
        self.phase = ACQUIRED
        record = self.record
        record.attempts = attempt
        record.resource_id = decision.resource_id
        record.account_id = account_id

    def refused(self, problem: Problem, *, first: bool) -> Next:
        """Routing has no resource for the next attempt. After a failed attempt the
        client gets the upstream's error, unless the problem tells it more."""
        failure = self.failure
        # Clients give up on a 401. While another key of the account is only rate
        # limited they had better wait.
        better = (
            failure is not None
            and failure.status in (401, 403)
            and problem.status == 429
        )
        if first or better or problem.ledger_code == _OWNER_GONE:
            self.problem = problem
        return ANSWER

    def foreign(self, refused: ForeignId) -> Problem:
        """The answer to a request that names an id of another tenant."""
        problem = not_found(self.ids[refused.which], self.hints, self.route)
        problem.ledger_code = "foreign_id" if refused.known else "unknown_id"
        return problem

    def sent(self, now: float) -> None:
        """The request goes upstream now."""
        self.phase, self.sent_at = SENT, now
        record = self.record
        if record.overhead_ms is None:
            record.overhead_ms = int((now - self.began) * 1e6) / 1000

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
        cause = str(error)
        if error.ends_request:
            self.another(Verdict(kind="fault", cause="timeout"), error.cause)
            self.problem = upstream_timeout(limit_s)
            return ANSWER
        if self.failure is None:
            self.record.error_message = cause
        verdict = NEUTRAL if error.is_ours else Verdict(kind="fault", cause=cause)
        self.another(verdict, error.cause)
        return ACQUIRE

    def unopened(self, error: UpstreamError) -> Next:
        """The attempt got no socket. What an earlier upstream said counts no more."""
        self.failure = None
        return self.failed(error)

    def rejected(
        self, failure: Failure, facts: Facts, now: Callable[[], datetime]
    ) -> Next:
        """An error was read whole."""
        self.failure = failure
        self.record.error_code = facts.error_code
        self.record.error_message = facts.error_message
        if retried(failure.status):
            step = ACQUIRE
        elif failure.status == 400 and self.unreadable:
            step = REWRITE
        else:
            return ANSWER
        verdict = judge(failure.status, failure.headers, facts.error_code, now)
        self.another(verdict, cause_of(failure.status, verdict))
        return step

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

    def unpinned(self) -> None:
        """A turn holds no lease until its socket's resource is pinned."""
        self.record.resource_id = None

    # The end -----------------------------------------------------------------

    def relayed(self, answer: Relayed, *, stalled: bool = False) -> None:
        """Take in an answer that was relayed over HTTP, as far as it came. `stalled`:
        the client did not read it in time."""
        record = self.record
        record.status_code = answer.status
        record.response_bytes = answer.bytes_out
        record.transport = "sse" if answer.streams else "http"
        record.error_code = record.error_message = None
        if answer.first_token_at is not None:
            record.first_token_ms = self.ms(answer.first_token_at)
        facts = answer.facts()
        record.take(facts)
        if answer.status < 400:
            record.minted = facts.ids
        if stalled:
            # The client's fault: it says nothing about the resource.
            record.outcome, record.error_code = "failed", "client_stalled"
        else:
            record.outcome = outcome_of(record.outcome, answer)
            self.verdict = verdict_of(record, answer)
        self.phase = RELAYED

    def received(self, size: int, token_at: float | None) -> None:
        """An event of a turn passed. `token_at`: when, if it carries output."""
        record = self.record
        record.response_bytes += size
        if token_at is not None and record.first_token_ms is None:
            record.first_token_ms = self.ms(token_at)

    def concluded(
        self,
        outcome: str,
        facts: Facts,
        verdict: Verdict = NEUTRAL,
        status: int | None = None,
    ) -> None:
        """Take in how a turn of a socket ended."""
        record = self.record
        record.outcome = outcome
        record.status_code = record.status_code if status is None else status
        record.take(facts)
        record.minted = facts.ids
        self.verdict = verdict
        self.phase = RELAYED

    def answers(self, problem: Problem, size: int | None = None) -> None:
        """The client gets an error of the gateway, over HTTP with `size` bytes."""
        self.problem = problem
        record = self.record
        if size is not None:
            record.response_bytes = size
        record.outcome = "failed"
        record.status_code = problem.status
        record.error_code = problem.ledger_code
        record.error_message = problem.message

    def passes_on(self) -> Failure:
        """The client gets the upstream's last error. Raises a `Problem` when there is
        none."""
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

    def ended(self, now: float, now_ms: int) -> Release:
        """Close the record: the release of the lease, with the request event. `now_ms`
        is Unix time."""
        record = self.record
        record.latency_ms = int((now - self.began) * 1e6) / 1000
        record.completed_at_ms = now_ms
        outcome = record.outcome
        if outcome is None:
            outcome = record.outcome = "failed"
        self.phase = SETTLED
        # Positional: keywords double the cost.
        return Release(
            record.id,
            record.gateway_id,
            record.resource_id or "",
            None if self.judged else self.verdict,
            self.session if outcome == _COMPLETED else "",
            tuple([digest(id_) for id_ in record.minted]),
            record.model if self.way is None else self.way.upstream_id,
            request_event(record),
            self.asker.tenant,
        )

    def released(self, verdict: Verdict) -> Release:
        """The verdict on the current attempt; the request goes on."""
        record = self.record
        return Release(
            record.id,
            record.gateway_id,
            record.resource_id or "",
            verdict,
            "",
            (),
            record.model if self.way is None else self.way.upstream_id,
            None,
            self.asker.tenant,
        )

    # What others read --------------------------------------------------------

    @property
    def account_bound(self) -> bool:
        """Can only one account read the request, until it is rewritten?"""
        return self.hints.account_bound and not self.replayed

    @property
    def unreadable(self) -> bool:
        """Did the upstream reject encrypted reasoning that another account wrote?"""
        rejected = self.record.error_code == "invalid_encrypted_content"
        return rejected and self.account_bound

    @property
    def reason(self) -> str:
        """Why the current attempt goes where it goes."""
        if self.problem is not None and self.problem.ledger_code == _OWNER_GONE:
            return _OWNER_GONE
        return self.decision.reason

    def lease(self) -> Lease | None:
        """The lease that this request should hold now."""
        resource_id = self.record.resource_id
        if resource_id is None or self.phase is SETTLED:
            return None
        return Lease(self.record.id, resource_id, lease_record(self.record))

    def ms(self, until: float) -> float:
        """Milliseconds from the arrival. round() would take thrice as long."""
        return int((until - self.began) * 1e6) / 1000

    def ours(self) -> list[Header]:
        """The gateway's own headers of the answer."""
        record, reason = self.record, self.reason
        headers = [
            (b"x-proxy-request-id", record.id.encode()),
            (b"x-proxy-attempts", b"%d" % record.attempts),
        ]
        if record.resource_id:
            headers.append((b"x-proxy-resource-id", record.resource_id.encode()))
        if reason:
            headers.append((b"x-proxy-reason", reason.encode()))
        return headers

    def our_lines(self) -> bytes:
        """The same for a relayed answer, as lines for the wire."""
        record = self.record
        return (
            f"x-proxy-request-id: {record.id}\r\n"
            f"x-proxy-attempts: {record.attempts}\r\n"
            f"x-proxy-resource-id: {record.resource_id}\r\n"
            f"x-proxy-reason: {self.decision.reason}\r\n"
        ).encode()
