"""The gateway's own headers of an answer. Pure."""

from libs.common.headers import Header
from services.gateway.ledger.record import Record


def own_headers(record: Record, reason: str) -> list[Header]:
    """What a client is told about its request."""
    headers = [
        (b"x-proxy-request-id", record.id.encode()),
        (b"x-proxy-attempts", b"%d" % record.attempts),
    ]
    if record.resource_id:
        headers.append((b"x-proxy-resource-id", record.resource_id.encode()))
    if reason:
        headers.append((b"x-proxy-reason", reason.encode()))
    return headers


def own_lines(record: Record, reason: str) -> bytes:
    """The same for a relayed answer, as lines for the wire."""
    return (
        f"x-proxy-request-id: {record.id}\r\n"
        f"x-proxy-attempts: {record.attempts}\r\n"
        f"x-proxy-resource-id: {record.resource_id}\r\n"
        f"x-proxy-reason: {reason}\r\n"
    ).encode()
