"""Errors of the gateway itself, of the router, and of upstreams."""

import pytest

from services.gateway.errors import Problem, service


@pytest.mark.parametrize(
    ("problem", "seconds"),
    [
        (service.restarts(), b"1"),
        (service.socket_restarts(), b"1"),
        (service.router_unreachable(), b"2"),
    ],
)
def test_what_passes_soon_has_a_retry_after(problem: Problem, seconds: bytes) -> None:
    assert (problem.status, problem.headers) == (503, ((b"retry-after", seconds),))


def test_an_error_that_cannot_be_decompressed_keeps_its_status() -> None:
    problem = service.unreadable_error(418, "br\n" * 50)
    assert problem.status == 418
    assert "\n" not in problem.message
