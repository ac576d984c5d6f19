"""Errors of routing: no resource, pool, model or account."""

import pytest

from services.gateway.errors import routing


@pytest.mark.parametrize(
    ("method", "encrypted", "status", "code"),
    [
        ("GET", False, 503, "affinity_owner_unavailable"),
        ("GET", True, 503, "affinity_owner_unavailable"),
        ("POST", True, 400, "invalid_encrypted_content"),
        ("POST", False, 400, "previous_response_not_found"),
        ("WS", False, 400, "previous_response_not_found"),
    ],
)
def test_a_lost_owner_is_told_in_codes_that_clients_act_upon(
    method: str, encrypted: bool, status: int, code: str
) -> None:
    problem = routing.owner_unavailable(method=method, encrypted=encrypted)
    assert (problem.status, problem.code) == (status, code)
    assert problem.ledger_code == "affinity_owner_unavailable"


def test_a_pool_that_does_not_exist_is_quoted_in_part_with_those_that_do() -> None:
    problem = routing.unknown_pool("p" * 500, ["a", "b"])
    assert "p" * 101 not in problem.message
    assert "Pools: a, b." in problem.message
    assert "Pools: none." in routing.unknown_pool("p", []).message
