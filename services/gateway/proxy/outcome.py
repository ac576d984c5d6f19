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
