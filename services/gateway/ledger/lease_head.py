"""The beginning of the record that a lease carries. Pure."""

from typing import Final

from services.gateway.ledger.record import Record, request_event

_encode: Final = request_event  # found sooner than an imported name


def lease_head(record: Record) -> bytes:
    """The record so far as a JSON object without its last brace. The attempt and its
    resource are missing: the routing function adds them."""
    resource_id = record.resource_id
    if resource_id is None:
        return _encode(record)[:-1]
    account_id, attempts = record.account_id, record.attempts
    record.resource_id, record.account_id, record.attempts = None, None, 0
    head = _encode(record)[:-1]
    record.resource_id, record.account_id = resource_id, account_id
    record.attempts = attempts
    return head
