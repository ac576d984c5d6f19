"""Headers passed to the upstream and to the client."""

import pytest

from services.gateway.content.headers import (
    downstream,
    end_to_end,
    lines_of,
    readable,
    request_head,
    upgrade_head,
    without_limit_lines,
)
from services.gateway.server.framing import relayed_head

LINE = b"authorization: Bearer sk"
UP = [
    (b"host", b"proxy:8000"),
    (b"authorization", b"Bearer rpx_secret"),
    (b"cookie", b"a=b"),
    (b"connection", b"close, x-hop"),
    (b"x-hop", b"1"),
    (b"x-proxy-session-id", b"s"),
    (b"openai-organization", b"org"),
    (b"content-length", b"9"),
    (b"transfer-encoding", b"chunked"),
    (b"x-codex-window-id", b"w"),
    (b"openai-beta", b"b"),
    (b"x-dup", b"1"),
    (b"x-dup", b"2"),
]


def test_the_clients_credentials_stay_here_and_the_key_goes() -> None:
    head = request_head("POST", b"/v1/responses?a=1", b"up", LINE, lines_of(UP), 3)
    assert head == (
        b"POST /v1/responses?a=1 HTTP/1.1\r\nhost: up\r\nx-codex-window-id: w\r\n"
        b"openai-beta: b\r\nx-dup: 1\r\nx-dup: 2\r\nauthorization: Bearer sk\r\n"
        b"content-length: 3\r\n\r\n"
    )


@pytest.mark.parametrize(
    "name", [b"authorization", b"api-key", b"x-api-key", b"ocp-apim-subscription-key"]
)
@pytest.mark.parametrize("key", [(b"authorization", b"Bearer sk"), (b"api-key", b"k")])
def test_whichever_header_has_the_key_no_credential_of_the_client_goes(
    name: bytes, key: tuple[bytes, bytes]
) -> None:
    theirs = [(name, b"Bearer theirs"), (b"x-end", b"1")]
    head = request_head("GET", b"/", b"h", b": ".join(key), lines_of(theirs), None)
    assert head.split(b"\r\n")[2:4] == [b"x-end: 1", b": ".join(key)]
    assert b"theirs" not in head
    assert upgrade_head(theirs, (key,)) == [(b"x-end", b"1"), key]


def test_no_length_without_a_body() -> None:
    assert b"content-length" not in request_head("GET", b"/", b"h", b"k: v", [], None)


def test_downstream_hides_the_account_and_keeps_duplicates() -> None:
    answer = [
        (b"content-type", b"application/json"),
        (b"set-cookie", b"__cf_bm=1"),
        (b"openai-organization", b"acct"),
        (b"openai-project", b"proj"),
        (b"transfer-encoding", b"chunked"),
        (b"link", b"a"),
        (b"link", b"b"),
        (b"x-request-id", b"req_1"),
        (b"x-proxy-reason", b"forged"),
        (b"x-proxy-other", b"forged"),
    ]
    assert downstream(answer, [(b"x-proxy-reason", b"panic")]) == [
        (b"content-type", b"application/json"),
        (b"link", b"a"),
        (b"link", b"b"),
        (b"x-request-id", b"req_1"),
        (b"x-proxy-reason", b"panic"),
    ]


def test_what_connection_headers_name_stays_on_the_connection() -> None:
    headers = [
        (b"connection", b"keep-alive"),
        (b"x-hop", b"1"),
        (b"connection", b"X-Hop, Content-Length"),
        (b"content-length", b"3"),
        (b"x-end", b"2"),
    ]
    assert end_to_end(headers) == [(b"content-length", b"3"), (b"x-end", b"2")]
    for head in (
        request_head("GET", b"/", b"h", b"k: v", lines_of(headers), None),
        relayed_head(200, headers, b"", b"")[0],
    ):
        assert b"x-end: 2" in head
        assert b"x-hop" not in head
    assert relayed_head(200, headers, b"", b"")[0].count(b"content-length: 3") == 1


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        (b"gzip, deflate", b"gzip, deflate"),
        (b"gzip;q=1.0,\tidentity; q=0.5, *;q=0", b"gzip;q=1.0,\tidentity; q=0.5"),
        (b"GZIP, x-gzip ,zstd", b"GZIP, x-gzip ,zstd"),
        (b"br, gzip, deflate", b"gzip, deflate"),
        (b"gzip, deflate, br, zstd", b"gzip, deflate, zstd"),
        (b"br", b"identity"),
        (b"*", b"identity"),
        (b"", b""),
        (b"gzip" + b", br" * 100, b"gzip"),
    ],
)
def test_answers_are_asked_for_in_codings_that_can_be_opened(
    accepted: bytes, sent: bytes
) -> None:
    """In any other coding, an error could show the key to the client."""
    assert readable(accepted) == sent
    headers = [(b"accept-encoding", accepted)]
    head = request_head("GET", b"/", b"h", b"k: v", lines_of(headers), None)
    assert b"\r\naccept-encoding: " + sent + b"\r\n" in head
    assert upgrade_head(headers, ())[0] == (b"accept-encoding", sent)


def test_lines_that_tell_limits_of_the_account_go_wherever_they_are() -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nx-ratelimit-limit-requests: 10\r\nx-request-id: r\r\n"
        b"x-ratelimit-remaining-tokens: 5\r\nx-ratelimit-reset-tokens: 6m0s\r\n"
        b"about: x-ratelimit-limit-tokens\r\nnot-x-ratelimit-limit-tokens: 1\r\n"
        b"x-ratelimit-later: new\r\n\r\n"
    )
    assert without_limit_lines(head) == (
        b"HTTP/1.1 200 OK\r\nx-request-id: r\r\nabout: x-ratelimit-limit-tokens\r\n"
        b"not-x-ratelimit-limit-tokens: 1\r\n\r\n"
    )
    plain = b"HTTP/1.1 200 OK\r\nx-request-id: r\r\n\r\n"
    assert without_limit_lines(plain) == plain
