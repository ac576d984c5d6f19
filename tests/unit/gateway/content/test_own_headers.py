"""The gateway's own headers of an answer."""

from services.gateway.content.own_headers import own_headers, own_lines


def test_a_client_is_told_what_was_done() -> None:
    assert [name for name, _ in own_headers("r", 0, None, "")] == [
        b"x-proxy-request-id",
        b"x-proxy-attempts",
    ]
    done = "r", 2, "a", "session_affinity"
    lines = b"".join(b"%b: %b\r\n" % header for header in own_headers(*done))
    assert lines == own_lines(*done)
    assert b"x-proxy-reason: session_affinity\r\n" in lines
