"""Failures of the gateway, of the router, and of upstreams."""

from services.gateway.errors.problem import Problem


def internal() -> Problem:
    return Problem(
        500,
        "internal_error",
        "The proxy failed on this request. Its log has the cause under the request's "
        "x-proxy-request-id.",
    )


def restarts() -> Problem:
    return Problem(
        503,
        "gateway_restarts",
        "This gateway restarted before the upstream answered. Send the request again.",
        headers=((b"retry-after", b"1"),),
    )


def socket_restarts() -> Problem:
    return Problem(
        503,
        "gateway_restarts",
        "This gateway is restarting. Open a new WebSocket and send the request again.",
        headers=((b"retry-after", b"1"),),
    )


def router_unreachable() -> Problem:
    return Problem(
        503,
        "router_unreachable",
        "The router does not answer, so the dashboard and the admin API are not "
        "available. Traffic under /v1 continues. Check the router's log.",
        headers=((b"retry-after", b"2"),),
    )


def upstream_unreachable(attempts: int, cause: str) -> Problem:
    return Problem(
        502,
        "upstream_unreachable",
        f"No upstream answered ({attempts} tried; last error: {cause}). Try again. "
        "The dashboard shows which keys fail and why.",
    )


def upstream_timeout(seconds: float) -> Problem:
    return Problem(
        504,
        "upstream_timeout",
        f"The upstream did not answer within {seconds:g} s. Try again, use background "
        "mode, or ask the operator to raise PROXY_REQUEST_TIMEOUT_SECONDS.",
    )


def unreadable_error(status: int, coding: str) -> Problem:
    return Problem(
        status,
        "upstream_error_unreadable",
        f"The upstream answered {status} in the content coding {coding[:40]!a}, which "
        "this gateway cannot decompress. The text is withheld because it may contain "
        "the upstream key.",
    )


def models_unreadable(cause: str) -> Problem:
    """`cause` completes the sentence "The upstream's list of models ..."."""
    return Problem(
        502,
        "models_unreadable",
        f"The upstream's list of models {cause}, so the gateway cannot add its aliases "
        "or leave out what this key may not use. Ask for a model by its name.",
    )


def socket_broke(what: str) -> Problem:
    """`what` completes the sentence "The upstream's WebSocket ..."."""
    return Problem(
        502,
        "upstream_unreachable",
        f"The upstream's WebSocket {what}. Open a new one and send the request again.",
    )
