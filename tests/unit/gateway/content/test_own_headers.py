"""The gateway's own headers of an answer."""

import pytest

from services.gateway.content.own_headers import cost_line, own_headers, own_lines


@pytest.mark.parametrize(
    ("nanos", "line"),
    [
        (1_234_567_891, b"x-proxy-cost-usd: 1.234567891\r\n"),
        (0, b"x-proxy-cost-usd: 0.000000000\r\n"),
        (None, b""),
    ],
)
def test_the_cost_of_an_answer(nanos: int | None, line: bytes) -> None:
    assert cost_line(nanos) == line


def test_a_client_is_told_what_was_done() -> None:
    assert [name for name, _ in own_headers("r", 0, None, "")] == [
        b"x-proxy-request-id",
        b"x-proxy-attempts",
    ]
    done = "r", 2, "a", "session_affinity"
    lines = b"".join(b"%b: %b\r\n" % header for header in own_headers(*done))
    assert lines == own_lines(*done)
    assert b"x-proxy-reason: session_affinity\r\n" in lines
