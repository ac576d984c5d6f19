"""Errors of proxy keys and of isolation."""

from services.gateway.errors import access


def test_a_missing_or_invalid_key_is_challenged() -> None:
    challenge = ((b"www-authenticate", b"Bearer"),)
    assert access.proxy_key_required().headers == challenge
    assert access.invalid_proxy_key("has expired").headers == challenge


def test_a_limited_key_is_told_when_to_try_again() -> None:
    problem = access.key_limited("tokens", 7, 1500)
    assert problem.headers == ((b"retry-after", b"2"),)
    assert "7 tokens per minute" in problem.message


def test_an_unknown_id_is_answered_as_the_upstream_does() -> None:
    problem = access.unknown_response("resp_1")
    assert (problem.status, problem.code, problem.param) == (
        400, "previous_response_not_found", "previous_response_id",
    )  # fmt: skip
    assert access.unknown_file("file-1").message == "No such File object: file-1"
