"""The gateway's own headers of an answer."""

from services.gateway.content.own_headers import own_headers, own_lines
from services.gateway.ledger.record import Record


def test_a_client_is_told_what_was_done() -> None:
    record = Record("r", 1, "POST", "/v1/responses", "gw")
    assert [name for name, _ in own_headers(record, "")] == [
        b"x-proxy-request-id",
        b"x-proxy-attempts",
    ]
    record.resource_id, record.attempts = "a", 2
    told = own_headers(record, "session_affinity")
    lines = b"".join(b"%b: %b\r\n" % header for header in told)
    assert lines == own_lines(record, "session_affinity")
    assert b"x-proxy-reason: session_affinity\r\n" in lines
