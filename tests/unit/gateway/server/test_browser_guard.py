"""The check of web pages' requests, before anything else."""

import pytest

from libs.common.browser_guard import Guard
from libs.common.headers import Header
from services.gateway.content.headers import downstream
from services.gateway.errors import bad_request
from services.gateway.server.browser_guard import BrowserGuard
from services.gateway.server.framing import relayed_head
from services.gateway.server.request import Request

LISTED = b"https://app.example"
KEEPER = BrowserGuard(Guard(origins=(LISTED.decode(),)))


def looked_at(method: str, *headers: Header) -> Request:
    request = Request(method, b"/v1/responses", [(b"host", b"127.0.0.1"), *headers])
    request.origin = dict(headers).get(b"origin")
    KEEPER.api(request)
    return request


def test_programs_pass_untouched() -> None:
    request = looked_at("POST", (b"content-type", b"application/json"))
    assert (request.problem, request.cors) == (None, b"")


def test_a_listed_origin_may_read_its_answers() -> None:
    request = looked_at("POST", (b"origin", LISTED))
    assert request.problem is None
    assert b"access-control-allow-origin: https://app.example\r\n" in request.cors
    assert request.cors.endswith(b"\r\n")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
def test_another_is_refused(method: str) -> None:
    request = looked_at(method, (b"origin", b"https://evil.example"))
    assert request.problem is not None
    assert (request.problem.status, request.problem.code) == (403, "origin_not_allowed")
    assert request.cors == b""


def test_what_is_wrong_already_is_said_first() -> None:
    request = Request("POST", b"/v1/responses", [(b"host", b"127.0.0.1")])
    request.origin, request.problem = b"https://evil.example", bad_request()
    KEEPER.api(request)
    assert request.problem.code == "bad_request"


def test_only_preflights_are_answered_here() -> None:
    wants: Header = (b"access-control-request-method", b"POST")
    asked = looked_at("OPTIONS", (b"origin", LISTED), wants)
    allowed = dict(KEEPER.preflight(asked) or [])
    assert allowed[b"access-control-allow-headers"] == b"authorization, content-type"
    plain = looked_at("OPTIONS", (b"origin", LISTED))
    assert KEEPER.preflight(plain) is None
    assert KEEPER.preflight(looked_at("OPTIONS", wants)) is None
    assert KEEPER.preflight(looked_at("POST", (b"origin", LISTED), wants)) is None


def test_an_upstream_lets_no_page_read() -> None:
    said = [(b"access-control-allow-origin", b"*"), (b"x-request-id", b"r")]
    said += [(b"access-control-allow-credentials", b"true")]
    assert downstream(said, []) == [(b"x-request-id", b"r")]
    assert b"access-control" not in relayed_head(200, said, b"", b"")[0]
