"""What the gateway says of its own errors, in OpenAI's envelope. Each message
says what to do."""

from collections.abc import Sequence

import msgspec

from libs.common.errors import ProxyError

Header = tuple[bytes, bytes]


class Problem(ProxyError):
    """An answer of the gateway's own instead of the upstream's."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        param: str | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = tuple(headers)
        self.ledger_code = code or ""  # what SQL says, where it differs from the answer

    def body(self) -> bytes:
        """The JSON envelope; all four members, as SDKs expect."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": _kind(self.status),
                    "param": self.param,
                    "code": self.code,
                }
            }
        )


def error_frame(problem: Problem, stream_id: str | None) -> str:
    """A problem as sockets tell it. Codex hangs on a frame that lacks `status`
    (responses-api.md 2.8)."""
    frame = {"type": "error", "status": problem.status}
    frame |= msgspec.json.decode(problem.body())
    if stream_id is not None:
        frame["stream_id"] = stream_id
    return msgspec.json.encode(frame).decode()


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    if status >= 500:
        return "server_error"
    return "invalid_request_error"


def unreadable_error(status: int, coding: str) -> Problem:
    return Problem(
        status,
        "upstream_error_unreadable",
        f"The upstream answered {status} in the coding {coding[:40]!a}, which this "
        "gateway cannot open. The text may show the upstream's key, so it is withheld.",
    )


def unknown_route(path: str) -> Problem:
    return Problem(
        404,
        "unknown_route",
        f"There is no {path[:200]!a} here. The API lives under /v1, "
        "the dashboard at /, its data under /admin.",
    )


def unsafe_path() -> Problem:
    return Problem(
        404,
        "unknown_route",
        "The path has dot segments, encoded slashes or a fragment. Send the plain "
        "path.",
    )


def body_too_large(limit: int) -> Problem:
    return Problem(
        413,
        "body_too_large",
        f"The request body is larger than {limit} bytes. Send less, or ask the "
        "operator to raise PROXY_MAX_BODY_BYTES.",
    )


def bad_request() -> Problem:
    return Problem(400, "bad_request", "This is not HTTP/1.1 as RFC 9112 has it.")


def no_room_for_body() -> Problem:
    return Problem(
        503,
        "no_capacity",
        "This gateway holds as many bytes of large request bodies as "
        "PROXY_BODY_MEMORY_BYTES allows. Try again later, raise it, or start another "
        "gateway.",
        headers=((b"retry-after", b"1"),),
    )


def bad_host() -> Problem:
    return Problem(
        400,
        "bad_request",
        "The request needs exactly one Host header with a valid host (RFC 9112 "
        "section 3.2). Send it.",
    )


def unknown_version() -> Problem:
    return Problem(
        505, "bad_request", "This server speaks HTTP/1.1 and HTTP/1.0. Use one of them."
    )


def unknown_framing() -> Problem:
    return Problem(
        501,
        "bad_request",
        "Of transfer codings this server knows chunked, with HTTP/1.1. Send that, or a "
        "Content-Length.",
    )


def head_too_large(limit: int) -> Problem:
    return Problem(
        431,
        "headers_too_large",
        f"The request's headers are larger than {limit} bytes. Send fewer or shorter "
        "ones.",
    )


def too_many_headers(limit: int) -> Problem:
    return Problem(
        431,
        "headers_too_large",
        f"The request has more than {limit} headers. Send fewer.",
    )


def head_stalled(seconds: float) -> Problem:
    return Problem(
        408,
        "request_timeout",
        f"The request's headers did not arrive within {seconds:g} s. Send it again.",
    )


def too_many_connections() -> Problem:
    return Problem(
        503,
        "no_capacity",
        "This gateway has as many connections as PROXY_MAX_CONNECTIONS allows. Try "
        "again later, raise it, or start another gateway.",
        headers=((b"retry-after", b"1"),),
    )


def body_stalled(seconds: float) -> Problem:
    return Problem(
        408,
        "request_timeout",
        f"The request body did not go on for {seconds:g} s. Send it again.",
    )


def method_not_allowed(method: str) -> Problem:
    return Problem(
        405,
        "method_not_allowed",
        f"{method[:20]} is not forwarded: it would show the upstream key.",
    )


def no_resources() -> Problem:
    return Problem(
        503,
        "no_resources_configured",
        "No upstream key is configured. Add a provider (POST /admin/providers), or "
        "set OPENAI_API_KEY or OPENAI_API_KEYS and restart, or PROXY_SIMULATE=true to "
        "try without one.",
    )


def not_ready() -> Problem:
    return Problem(
        503,
        "no_capacity",
        "The proxy is starting: it has no list of resources yet. Try again.",
        headers=((b"retry-after", b"1"),),
    )


_CHALLENGE = (b"www-authenticate", b"Bearer")


def proxy_key_required() -> Problem:
    return Problem(
        401,
        "invalid_proxy_key",
        "This proxy demands a key of its own. Send it as Authorization: Bearer "
        "rpx_... (your client's API key); the operator mints one with POST "
        "/admin/keys.",
        headers=(_CHALLENGE,),
    )


def invalid_proxy_key(what: str) -> Problem:
    return Problem(
        401,
        "invalid_proxy_key",
        f"This proxy key {what}. Ask the operator for another one (POST /admin/keys), "
        "and set it as your client's API key.",
        headers=(_CHALLENGE,),
    )


def keys_unknown() -> Problem:
    return Problem(
        503,
        "not_ready",
        "The proxy is starting: it has no list of proxy keys yet. Try again.",
        headers=((b"retry-after", b"1"),),
    )


def pool_not_allowed(asked: str, allowed: Sequence[str]) -> Problem:
    return Problem(
        403,
        "pool_not_allowed",
        f"This proxy key may not use the pool {asked[:100]!r}. Its pools: "
        f"{', '.join(allowed)}. Name one of them, or none to use the first.",
        param="pool_id",
    )


def key_limited(which: str, limit: int, wait_ms: int) -> Problem:
    return Problem(
        429,
        "rate_limit_exceeded",
        f"This proxy key has used its {limit} {which} per minute. Try again after "
        "the time in Retry-After, or ask the operator for more.",
        headers=(retry_after(wait_ms),),
    )


def unknown_pool(asked: str, pools: Sequence[str]) -> Problem:
    known = ", ".join(pools) or "none"
    return Problem(
        400,
        "unknown_pool",
        f"There is no pool {asked[:100]!r}. Pools: {known}. Name one of them, or "
        "none to use all resources.",
        param="pool_id",
    )


def alias_leads_nowhere(alias: str, provider_id: str) -> Problem:
    return Problem(
        404,
        "model_not_found",
        f"The model alias {alias!r} leads to the provider {provider_id!r}, which has "
        "no resource now: it is disabled or was deleted. The operator sees it under "
        "/admin/providers.",
        param="model",
    )


def provider_gone(provider_id: str) -> Problem:
    return Problem(
        404,
        "model_not_found",
        f"There is no provider {provider_id[:100]!r} with a resource.",
        param="model",
    )


def model_not_allowed(alias: str, pools: Sequence[str]) -> Problem:
    return Problem(
        403,
        "model_not_allowed",
        f"This proxy key may not use the model {alias!r}: its provider is in none of "
        f"the key's pools ({', '.join(pools)}).",
        param="model",
    )


def model_not_in_pool(alias: str, provider_id: str, asked: str) -> Problem:
    return Problem(
        400,
        "model_not_in_pool",
        f"The model alias {alias!r} leads to the provider {provider_id!r}, which is "
        f"not in the pool {asked[:100]!r}. Name its pool, or none.",
        param="model",
    )


def model_not_placed(alias: str) -> Problem:
    return Problem(
        400,
        "invalid_json",
        f"The model alias {alias!r} cannot be replaced in this body, because it is not "
        "well-formed JSON. Send well-formed JSON.",
        param="model",
    )


def model_not_here(alias: str, provider_id: str) -> Problem:
    return Problem(
        400,
        "model_not_here",
        f"The model alias {alias!r} leads to the provider {provider_id!r}, and this "
        "socket to another one. Open a socket of its own for this model.",
        param="model",
    )


def no_capacity(retry_after_ms: int) -> Problem:
    return Problem(
        503,
        "no_capacity",
        "No upstream key can take this request now: all were tried or are "
        "refused. Try again later; the dashboard says which keys fail and why.",
        headers=(retry_after(retry_after_ms),),
    )


def owner_limited(retry_after_ms: int) -> Problem:
    return Problem(
        429,
        "rate_limit_exceeded",
        "The only upstream account that can read this conversation's state is "
        "rate limited. Try again after the time in Retry-After.",
        headers=(retry_after(retry_after_ms),),
    )


def owner_unavailable(*, method: str, encrypted: bool) -> Problem:
    """No working key of the owning account is left. Clients know how to go on
    from the codes the upstream itself would give (design.md section 3)."""
    cause = (
        "The upstream account that holds this conversation's state has no working "
        "key left. Start from the full history"
    )
    if method == "GET":
        code, message = "affinity_owner_unavailable", f"{cause}, or try later."
        problem = Problem(503, code, message, headers=(retry_after(30_000),))
    elif encrypted:
        message = f"{cause}, without encrypted reasoning."
        problem = Problem(400, "invalid_encrypted_content", message, param="input")
    else:
        problem = Problem(
            400,
            "previous_response_not_found",
            f"{cause}.",
            param="previous_response_id",
        )
    problem.ledger_code = "affinity_owner_unavailable"
    return problem


def ids_unverified() -> Problem:
    return Problem(
        503,
        "not_ready",
        "The proxy cannot look up now whose the ids in this request are. Try again.",
        headers=((b"retry-after", b"1"),),
    )


def upstream_unreachable(attempts: int, cause: str) -> Problem:
    return Problem(
        502,
        "upstream_unreachable",
        f"No upstream answered ({attempts} tried; last: {cause}). Try again; the "
        "dashboard says which keys fail and why.",
    )


def upstream_timeout(seconds: float) -> Problem:
    return Problem(
        504,
        "upstream_timeout",
        f"The upstream did not answer within {seconds:g} s. Try again, use "
        "background mode, or raise PROXY_REQUEST_TIMEOUT_SECONDS.",
    )


def websocket_unavailable() -> Problem:
    return Problem(
        426,
        "websocket_unavailable",
        "WebSockets are served on /v1/responses. Use HTTP for other paths.",
    )


def bad_upgrade() -> Problem:
    return Problem(400, "bad_request", "This is no WebSocket upgrade of RFC 6455.")


def socket_broke(what: str) -> Problem:
    return Problem(
        502,
        "upstream_unreachable",
        f"The upstream's socket {what}. Open a new one and send the request again.",
    )


def client_stalled() -> Problem:
    return Problem(408, "client_stalled", "The answer was not read in time.")


def socket_restarts() -> Problem:
    return Problem(
        503,
        "gateway_restarts",
        "This gateway restarts. Open a new socket and send the request again.",
        headers=((b"retry-after", b"1"),),
    )


def restarts() -> Problem:
    return Problem(
        503,
        "gateway_restarts",
        "This gateway restarts before there was an answer. Send the request again.",
        headers=((b"retry-after", b"1"),),
    )


def internal() -> Problem:
    return Problem(
        500,
        "internal_error",
        "The proxy failed on this request. It is logged under x-proxy-request-id.",
    )


def retry_after(milliseconds: int) -> Header:
    """Whole seconds, at least 1: Codex reads nothing else (responses-api.md 2.7)."""
    return b"retry-after", str(max(1, -(-milliseconds // 1000))).encode()
