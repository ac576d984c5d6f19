"""A request's target, as clients may write it."""

import pytest

from services.gateway.requests import Request


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/v1/x", b"/v1/x", b""),
        (b"/v1/x?a=b?c", b"/v1/x", b"?a=b?c"),
        (b"/v1/x?", b"/v1/x", b"?"),
        (b"//host/x", b"//host/x", b""),
        (b"http://host/v1/x?a", b"/v1/x", b"?a"),
        (b"https://host", b"/", b""),
        (b"https://host?a=b", b"/", b""),
        (b"*", b"/*", b""),
        (b"", b"/", b""),
    ],
)
def test_a_target_is_a_path_and_a_query(
    target: bytes, path: bytes, query: bytes
) -> None:
    request = Request("GET", target, [])
    assert (request.path, request.query) == (path, query)


def test_a_new_request_has_no_body_and_no_problem() -> None:
    request = Request("GET", b"/", [(b"a", b"b")])
    assert (request.body, request.problem, request.keep_alive) == (b"", None, True)
    assert request.headers == [(b"a", b"b")]
