"""Requests that are malformed, too large, too slow, or for an unknown path."""

from services.gateway.errors.problem import Problem


def bad_request() -> Problem:
    return Problem(
        400,
        "bad_request",
        "The request is not valid HTTP/1.1 (RFC 9112). Correct it and send it again.",
    )


def bad_host() -> Problem:
    return Problem(
        400,
        "bad_request",
        "The request needs exactly one Host header with a valid host (RFC 9112 "
        "section 3.2). Send one.",
    )


def unknown_version() -> Problem:
    return Problem(
        505,
        "bad_request",
        "Only HTTP/1.1 and HTTP/1.0 are supported. Use one of them.",
    )


def unknown_framing() -> Problem:
    return Problem(
        501,
        "bad_request",
        "Only the chunked transfer coding is supported, and only with HTTP/1.1. Use "
        "that, or send a Content-Length.",
    )


def bad_upgrade() -> Problem:
    return Problem(
        400,
        "bad_request",
        "The request is not a valid WebSocket upgrade (RFC 6455). Use a WebSocket "
        "client.",
    )


def unknown_route(path: str) -> Problem:
    return Problem(
        404,
        "unknown_route",
        f"The path {path[:200]!a} does not exist. The API is under /v1, the dashboard "
        "at /, and its data under /admin.",
    )


def unsafe_path() -> Problem:
    return Problem(
        404,
        "unknown_route",
        "The path contains dot segments, encoded slashes or a fragment. Send it "
        "without them.",
    )


def method_not_allowed(method: str) -> Problem:
    return Problem(
        405,
        "method_not_allowed",
        f"{method[:20]} requests are not forwarded, because they would expose the "
        "upstream key. Use another method.",
    )


def websocket_unavailable() -> Problem:
    return Problem(
        426,
        "websocket_unavailable",
        "WebSockets are only served on /v1/responses. Use HTTP for other paths.",
    )


def head_too_large(limit: int) -> Problem:
    return Problem(
        431,
        "headers_too_large",
        f"The request's headers exceed {limit} bytes. Send fewer or shorter headers.",
    )


def too_many_headers(limit: int) -> Problem:
    return Problem(
        431,
        "headers_too_large",
        f"The request has more than {limit} headers. Send fewer headers.",
    )


def head_stalled(seconds: float) -> Problem:
    return Problem(
        408,
        "request_timeout",
        f"The request's headers did not arrive within {seconds:g} s. Send the request "
        "again.",
    )


def body_stalled(seconds: float) -> Problem:
    return Problem(
        408,
        "request_timeout",
        f"No byte of the request body arrived for {seconds:g} s. Send the request "
        "again.",
    )


def client_stalled() -> Problem:
    return Problem(
        408,
        "client_stalled",
        "The client did not read the answer in time. Read answers as they arrive.",
    )


def body_too_large(limit: int) -> Problem:
    return Problem(
        413,
        "body_too_large",
        f"The request body exceeds {limit} bytes. Send less, or ask the operator to "
        "raise PROXY_MAX_BODY_BYTES.",
    )


def no_room_for_body() -> Problem:
    return Problem(
        503,
        "no_capacity",
        "The large request bodies in this gateway already use PROXY_BODY_MEMORY_BYTES. "
        "Try again later; the operator can raise it or start another gateway.",
        headers=((b"retry-after", b"1"),),
    )


def too_many_connections() -> Problem:
    return Problem(
        503,
        "no_capacity",
        "This gateway already has PROXY_MAX_CONNECTIONS connections. Try again later; "
        "the operator can raise it or start another gateway.",
        headers=((b"retry-after", b"1"),),
    )
