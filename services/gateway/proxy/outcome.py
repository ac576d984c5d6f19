"""What a relayed answer makes of its request, and says about its resource. Errors are
judged before they are relayed, by libs/common/upstream_answers/verdicts.py. Pure."""

from typing import Protocol

from libs.common.upstream_answers.verdicts import Verdict, of_failed_response
from services.gateway.content.response_facts import Facts
from services.gateway.ledger.record import NEUTRAL, Record


class Relayed(Protocol):
    """An answer that was relayed, as far as it came."""

    status: int
    bytes_out: int
    streams: bool
    torn: bool  # the upstream ended before its answer did
    first_token_at: float | None

    @property
    def terminal(self) -> str | None: ...

    def facts(self) -> Facts: ...


def outcome_of(before: str | None, answer: Relayed) -> str:
    """`before`: `cancelled` or `interrupted` when the client left or the gateway
    stops, `failed` after a fault of the gateway. A client that leaves after the
    terminal event has completed."""
    terminal = answer.terminal if answer.streams else None
    if terminal is not None:
        return "failed" if terminal in ("failed", "error") else "completed"
    if before is not None:
        return before
    return "failed" if answer.status >= 400 or answer.torn else "completed"


def verdict_of(record: Record, answer: Relayed) -> Verdict:
    """The verdict on the resource."""
    if answer.status >= 400 or record.outcome in ("cancelled", "interrupted"):
        return NEUTRAL
    if answer.torn:
        return Verdict(kind="fault", cause="broke off")
    if answer.streams and answer.terminal in ("failed", "error"):
        return of_failed_response(record.error_code, record.error_message)
    return Verdict("ok", "", None, record.upstream_ms)


def take_facts(record: Record, facts: Facts) -> None:
    """Fill in the facts of an answer. No method: records are not compiled."""
    record.response_id = facts.response_id or record.response_id
    # With a model alias it is known already.
    record.upstream_model = record.upstream_model or facts.model
    record.service_tier = facts.service_tier
    if facts.error_code or facts.error_message:
        record.error_code = facts.error_code or record.error_code
        record.error_message = facts.error_message or record.error_message
    if facts.input_tokens is None and facts.output_tokens is None:
        return
    record.input_tokens = facts.input_tokens
    record.cached_tokens = facts.cached_tokens
    record.output_tokens = facts.output_tokens
    record.reasoning_tokens = facts.reasoning_tokens
    record.total_tokens = facts.total_tokens
    record.usage_state = "final"
