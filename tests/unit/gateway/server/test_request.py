"""A request's target, as clients may write it."""

import pytest

from services.gateway.server.request import Request, origin_form, valid_host


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/v1/x", b"/v1/x", b""),
        (b"/v1/x?a=b?c", b"/v1/x", b"?a=b?c"),
        (b"/v1/x?", b"/v1/x", b"?"),
        (b"//host/x", b"//host/x", b""),
    ],
)
def test_a_target_is_a_path_and_a_query(
    target: bytes, path: bytes, query: bytes
) -> None:
    request = Request("GET", target, [])
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://host/v1/x?a", b"host", b"/v1/x?a"),
        (b"HTTP://host:81/v1/x?a://b", b"host:81", b"/v1/x?a://b"),
        (b"https://host", b"host", b"/"),
        (b"https://host?a=b", b"host", b"/?a=b"),
        (b"http:///v1/x", b"", b"/v1/x"),
        (b"ftp://host/v1/x", b"", b"/v1/x"),
        (b"*", None, b"/*"),
        (b"", None, b"/"),
    ],
)
def test_a_target_that_is_a_whole_url_names_the_host(
    target: bytes, host: bytes | None, path: bytes
) -> None:
    assert origin_form(target) == (host, path)


@pytest.mark.parametrize(
    "host",
    [b"x", b"api.test:443", b"127.0.0.1:8000", b"[::1]:8000", b"[fe80::1%25a]", b"x:"],
)
def test_a_host_is_a_name_or_an_address_with_or_without_a_port(host: bytes) -> None:
    assert valid_host(host)


@pytest.mark.parametrize(
    "host", [b"", b":80", b"a b", b"a/b", b"u@a", b"a:x", b"a:123456", b"[::1", b"\xff"]
)
def test_nothing_else_is_a_host(host: bytes) -> None:
    assert not valid_host(host)


def test_a_new_request_has_no_body_and_no_problem() -> None:
    request = Request("GET", b"/", [(b"a", b"b")])
    assert (request.body, request.problem, request.keep_alive) == (b"", None, True)
    assert request.headers == [(b"a", b"b")]
