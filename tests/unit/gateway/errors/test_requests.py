"""Errors of requests that are not served."""

import pytest

from services.gateway.errors import Problem, requests


def test_a_path_that_does_not_exist_is_quoted_in_part_and_in_ascii() -> None:
    message = requests.unknown_route("/\u2028" + "x" * 500).message
    assert message.isascii()
    assert len(message) < 400


@pytest.mark.parametrize(
    ("problem", "setting"),
    [
        (requests.body_too_large(7), "PROXY_MAX_BODY_BYTES"),
        (requests.no_room_for_body(), "PROXY_BODY_MEMORY_BYTES"),
        (requests.too_many_connections(), "PROXY_MAX_CONNECTIONS"),
    ],
)
def test_a_limit_is_named_by_its_setting(problem: Problem, setting: str) -> None:
    assert setting in problem.message
