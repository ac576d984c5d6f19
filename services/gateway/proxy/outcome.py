"""The end of a request: what became of it, and what that says of its resource."""

from libs.common.contracts.verdicts import Verdict, of_failed_response
from libs.common.routing.types import digest
from services.gateway.ledger.record import NEUTRAL, Record
from services.gateway.proxy.context import Exchange
from services.gateway.proxy.relay import Relay


def note_answer(exchange: Exchange, relay: Relay) -> tuple[str, ...]:
    """Take an answer that was relayed into the record. Returns the digests of the
    ids it minted: its account, and no other, can be asked for them."""
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
    record.minted = minted = facts.ids
    return tuple([digest(id_) for id_ in minted])


def _outcome(record: Record, relay: Relay) -> str:
    """A client that leaves after the terminal event has completed."""
    if relay.terminal is not None:
        return "failed" if relay.terminal in ("failed", "error") else "completed"
    if record.outcome in ("cancelled", "interrupted"):
        return record.outcome
    if relay.status >= 400 or relay.torn:
        return "failed"
    return "completed"


def _verdict(record: Record, relay: Relay) -> Verdict:
    """What an answer that was relayed says of its resource, by its end."""
    if relay.status >= 400 or record.outcome in ("cancelled", "interrupted"):
        return NEUTRAL
    if relay.torn:
        return Verdict(kind="fault", cause="broke off")
    if relay.terminal in ("failed", "error"):
        return of_failed_response(record.error_code)
    return Verdict(kind="ok", latency_ms=record.upstream_ms)
