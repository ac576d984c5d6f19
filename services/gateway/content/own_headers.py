"""The gateway's own headers of an answer. Pure."""

from libs.common.contracts.prices import NANOS
from libs.common.headers import Header


def own_headers(
    request_id: str, attempts: int, resource_id: str | None, reason: str
) -> list[Header]:
    """What a client is told about its request."""
    headers = [
        (b"x-proxy-request-id", request_id.encode()),
        (b"x-proxy-attempts", b"%d" % attempts),
    ]
    if resource_id:
        headers.append((b"x-proxy-resource-id", resource_id.encode()))
    if reason:
        headers.append((b"x-proxy-reason", reason.encode()))
    return headers


def cost_line(nanos: int | None) -> bytes:
    """What an answer cost, as a line for the wire; empty if it is not known."""
    if nanos is None:
        return b""
    return f"x-proxy-cost-usd: {nanos / NANOS:.9f}\r\n".encode()


def own_lines(
    request_id: str, attempts: int, resource_id: str | None, reason: str
) -> bytes:
    """The same for a relayed answer, as lines for the wire."""
    return (
        f"x-proxy-request-id: {request_id}\r\n"
        f"x-proxy-attempts: {attempts}\r\n"
        f"x-proxy-resource-id: {resource_id}\r\n"
        f"x-proxy-reason: {reason}\r\n"
    ).encode()
