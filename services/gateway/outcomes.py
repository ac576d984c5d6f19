"""What happened to a request, as the ledger will tell it."""

import asyncio
import time
from typing import Any, get_args

import msgspec
import structlog
from prometheus_client import Counter, Histogram

from libs.common.contracts import Outcome, Verdict, VerdictKind
from libs.common.routing import Release, RoutingFunctions
from services.gateway.answers import Facts
from services.gateway.outbox import Outbox

log = structlog.get_logger()

REQUESTS = Counter(
    "proxy_requests_total", "Requests that ended, by outcome.", ["outcome"]
)
ATTEMPTS = Counter("proxy_attempts_total", "Attempts, by verdict.", ["verdict"])
# Looking a label up costs more than counting.
_ENDED = {outcome.value: REQUESTS.labels(outcome.value) for outcome in Outcome}
_JUDGED = {kind: ATTEMPTS.labels(kind) for kind in get_args(VerdictKind)}
LATENCY = Histogram(
    "proxy_overhead_seconds",
    "From a request's arrival until it was sent upstream.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0),
)


class Record(msgspec.Struct, omit_defaults=True):
    """The request event while it comes to be: the fields of
    `contracts.RequestEvent` (a test compares them), cheap to write."""

    id: str
    created_at_ms: int
    method: str
    path: str
    gateway_id: str
    completed_at_ms: int | None = None
    session_id: str | None = None
    session_name: str | None = None
    pool_id: str | None = None
    resource_id: str | None = None
    account_id: str | None = None
    proxy_key_id: str | None = None
    model: str | None = None
    upstream_model: str | None = None
    transport: str = "http"
    status_code: int | None = None
    outcome: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    attempts: int = 0
    latency_ms: float | None = None
    upstream_ms: float | None = None
    first_token_ms: float | None = None
    overhead_ms: float | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    total_tokens: int | None = None
    usage_state: str = "unknown"
    request_bytes: int = 0
    response_bytes: int = 0
    service_tier: str | None = None
    response_id: str | None = None
    previous_response_id: str | None = None
    minted: tuple[str, ...] = ()

    def take(self, facts: Facts) -> None:
        """Fill in what the answer told of itself."""
        self.response_id = facts.response_id or self.response_id
        self.upstream_model = facts.model or self.upstream_model
        self.service_tier = facts.service_tier
        self.error_code = facts.error_code or self.error_code
        self.error_message = facts.error_message or self.error_message
        if facts.input_tokens is None and facts.output_tokens is None:
            return
        self.input_tokens = facts.input_tokens
        self.cached_tokens = facts.cached_tokens
        self.output_tokens = facts.output_tokens
        self.reasoning_tokens = facts.reasoning_tokens
        self.total_tokens = facts.total_tokens
        self.usage_state = "final"


_encode = msgspec.json.Encoder().encode
NEUTRAL = Verdict(kind="neutral")


def lease_head(record: Record) -> bytes:
    """The record so far as a JSON object without its last brace."""
    return _encode(record)[:-1]


class Ledger:
    """Hands ended attempts and requests to Redis, or to the outbox."""

    def __init__(self, routing: RoutingFunctions, outbox: Outbox) -> None:
        self._routing = routing
        self._outbox = outbox

    def attempt_failed(self, record: Record, verdict: Verdict) -> None:
        """An attempt ended, its request goes on: only the verdict counts."""
        _JUDGED[verdict.kind].inc()
        self._send(_release(record, verdict))

    def trial_begun_well(self, record: Record) -> None:
        """A half-open trial was answered: the resource works again."""
        self._send(_release(record, Verdict(kind="ok")))

    def request_ended(
        self, record: Record, verdict: Verdict | None, learned: tuple[str, ...]
    ) -> None:
        """A request ended: its lease goes, its event is written. Needs no
        await, so that nothing can come between. No verdict: the last attempt's
        was sent already."""
        record.completed_at_ms = int(time.time() * 1000)
        _ENDED[record.outcome or Outcome.FAILED].inc()
        if verdict and record.resource_id:
            _JUDGED[verdict.kind].inc()
        if record.overhead_ms is not None:
            LATENCY.observe(record.overhead_ms / 1000)
        self._send(_release(record, verdict, learned, event=_encode(record)))

    def decided_alone(self, decision_id: str, event: bytes) -> None:
        """A decision that was made without Redis."""
        self._outbox.keep("decision", decision_id, event)

    def _send(self, release: Release) -> None:
        reply = asyncio.ensure_future(self._routing.release(release))
        reply.add_done_callback(lambda done: self._settled(release, done))

    def _settled(self, release: Release, reply: "asyncio.Future[Any]") -> None:
        failure = reply.exception() if not reply.cancelled() else None
        if failure is None or release.event is None:
            return
        self._outbox.keep("request", release.request_id, release.event)


def _release(
    record: Record,
    verdict: Verdict | None,
    learned: tuple[str, ...] = (),
    event: bytes | None = None,
) -> Release:
    """Without a verdict no resource is named: nothing more is said of it. A
    session is bound by a completed request only."""
    completed = event is not None and record.outcome == Outcome.COMPLETED
    return Release(
        request_id=record.id,
        gateway_id=record.gateway_id,
        resource_id=(record.resource_id or "") if verdict else "",
        verdict=verdict or NEUTRAL,
        session_id=record.session_id if completed else None,
        learned=learned,
        event=event,
    )
