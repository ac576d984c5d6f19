"""What happened to a request, as the ledger will tell it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec
import structlog

from libs.common.contracts.events import Outcome
from libs.common.contracts.verdicts import Verdict
from libs.common.routing.aliases import Way
from libs.common.routing.functions import RoutingFunctions
from libs.common.routing.types import Asker, Owner, Release
from services.gateway import metrics
from services.gateway.capture.recorder import Capture, Capturer
from services.gateway.content.response_facts import Facts
from services.gateway.ledger.journal.journal import Journal

log = structlog.get_logger()


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
    team_id: str | None = None
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
        # An alias's is known before.
        self.upstream_model = self.upstream_model or facts.model
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
    """The record so far as a JSON object without its last brace: all but the attempt
    and its resource, which the function adds."""
    resource_id = record.resource_id
    if resource_id is None:
        return _encode(record)[:-1]
    account_id, attempts = record.account_id, record.attempts
    record.resource_id, record.account_id, record.attempts = None, None, 0
    head = _encode(record)[:-1]
    record.resource_id, record.account_id = resource_id, account_id
    record.attempts = attempts
    return head


def lease_record(record: Record) -> bytes:
    """What the reaper tells of a request should its gateway die."""
    return _encode(record)


class Attempt(Protocol):
    """A request under way, as far as its attempts are reported."""

    record: Record
    session: str
    verdict: Verdict
    judged: bool
    alone: bool
    capture: Capture | None
    way: Way | None
    asker: Asker


def _nothing() -> None:
    """A verdict that does not arrive is no loss: others will."""


class Ledger:
    """Writes what begins and ends into the journal, and tells Redis."""

    def __init__(
        self,
        routing: RoutingFunctions,
        journal: Journal,
        without_redis: Callable[[Release], None],
        capturer: Capturer,
    ) -> None:
        """`without_redis` is told of attempts that were decided without Redis."""
        self._routing = routing
        self._journal = journal
        self._without_redis = without_redis
        self.capturer = capturer
        self._named: dict[str, str] = {}

    def accepted(self, record: Record) -> bytes:
        """A request was taken in: from now on it has an end, whatever happens. Returns
        its `lease_head`."""
        head = lease_head(record)
        self._journal.accepted(record.id, head)
        return head

    def attempt_failed(self, attempt: Attempt, verdict: Verdict) -> None:
        """An attempt ended, its request goes on: only the verdict counts."""
        metrics.attempts[verdict.kind] += 1
        self._send(_release(attempt, verdict), alone=attempt.alone)

    def trial_begun_well(self, attempt: Attempt) -> None:
        """A half-open trial was answered: the resource works again."""
        self._send(_release(attempt, Verdict(kind="ok")), alone=attempt.alone)

    def request_ended(self, attempt: Attempt, learned: tuple[str, ...]) -> None:
        """A request ended: its lease goes, its event is written. Needs no
        await, so that nothing can come between."""
        record = attempt.record
        verdict = None if attempt.judged else attempt.verdict
        record.completed_at_ms = int(time.time() * 1000)
        metrics.requests[record.outcome or Outcome.FAILED.value] += 1
        if verdict and record.resource_id:
            metrics.attempts[verdict.kind] += 1
        if record.overhead_ms is not None:
            metrics.overhead.observe(record.overhead_ms / 1000)
        event = _encode(record)
        position = self._journal.ended(record.id, event)
        release = _release(attempt, verdict, learned, event=event)
        self._send(release, alone=attempt.alone, position=position)
        if attempt.capture is not None:
            self.capturer.hand_over(record.id, record.created_at_ms, attempt.capture)

    def decided(self, decision_id: str, event: bytes) -> None:
        """A decision that Redis made and told."""
        self._journal.decided(decision_id, event)

    def decided_alone(self, decision_id: str, event: bytes) -> None:
        """A decision that was made without Redis."""
        self._journal.unsent(self._journal.decided(decision_id, event))

    def account_named(self, resource_id: str, account_id: str) -> None:
        """An answer told whose key a resource is. Said once; a word that got lost
        is said again by the next health check."""
        if self._named.get(resource_id) == account_id:
            return
        self._named[resource_id] = account_id
        told = asyncio.ensure_future(
            self._routing.learn_account(resource_id, account_id)
        )
        told.add_done_callback(lambda done: done.cancelled() or done.exception())

    def minted_early(self, ids: Sequence[str], owner: Owner) -> None:
        """An answer named its response and goes on: its ids (digests) can be used
        from now on. Lost, they are known when it ends."""
        told = asyncio.ensure_future(self._routing.adopt(ids=dict.fromkeys(ids, owner)))
        told.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _send(
        self, release: Release, *, alone: bool, position: int | None = None
    ) -> None:
        """`position`: of the event in the journal, if it has one."""
        if alone:
            self._without_redis(release)
        failed = _nothing if position is None else partial(self._unsent, position)
        self._routing.report(release, failed)

    def _unsent(self, position: int) -> None:
        self._journal.unsent(position)


def _release(
    attempt: Attempt,
    verdict: Verdict | None,
    learned: tuple[str, ...] = (),
    event: bytes | None = None,
) -> Release:
    """A session is bound by a completed request only."""
    record = attempt.record
    completed = event is not None and record.outcome == Outcome.COMPLETED
    # In the order of the fields: names would double what this costs.
    return Release(
        record.id,
        record.gateway_id,
        record.resource_id or "",
        verdict,
        attempt.session if completed else "",
        learned,
        record.model if attempt.way is None else attempt.way.upstream_id,
        event,
        attempt.asker.tenant,
    )
