"""Requests for which there is no resource, pool, model or account."""

from collections.abc import Sequence

from services.gateway.errors.problem import Problem, retry_after


def not_ready() -> Problem:
    return Problem(
        503,
        "no_capacity",
        "The proxy is starting and has not read its list of resources yet. Try again.",
        headers=((b"retry-after", b"1"),),
    )


def no_resources() -> Problem:
    return Problem(
        503,
        "no_resources_configured",
        "No upstream key is configured. Add a provider (POST /admin/providers), or set "
        "OPENAI_API_KEY or OPENAI_API_KEYS and restart, or set PROXY_SIMULATE=true to "
        "try the proxy without a key.",
    )


def no_capacity(retry_after_ms: int) -> Problem:
    return Problem(
        503,
        "no_capacity",
        "No upstream key can serve this request at the moment: each was tried or is "
        "rejected. Try again later. The dashboard shows which keys fail and why.",
        headers=(retry_after(retry_after_ms),),
    )


def at_capacity(retry_after_ms: int) -> Problem:
    return Problem(
        429,
        "at_capacity",
        "All upstream keys that can serve this request are at their limit, and no "
        "other request ended in time. Try again after the time in Retry-After.",
        headers=(retry_after(retry_after_ms),),
    )


def unknown_pool(asked: str, pools: Sequence[str]) -> Problem:
    known = ", ".join(pools) or "none"
    return Problem(
        400,
        "unknown_pool",
        f"The pool {asked[:100]!r} does not exist. Pools: {known}. Name one of them, "
        "or none to use all resources.",
        param="pool_id",
    )


def alias_leads_nowhere(alias: str, provider_id: str) -> Problem:
    return Problem(
        404,
        "model_not_found",
        f"The model alias {alias!r} refers to the provider {provider_id!r}, which has "
        "no resource because it is disabled or deleted. Use another model; the "
        "operator can check /admin/providers.",
        param="model",
    )


def provider_gone(provider_id: str) -> Problem:
    return Problem(
        404,
        "model_not_found",
        f"The provider {provider_id[:100]!r} has no resource. Use another model.",
        param="model",
    )


def model_not_in_pool(alias: str, provider_id: str, asked: str) -> Problem:
    return Problem(
        400,
        "model_not_in_pool",
        f"The model alias {alias!r} refers to the provider {provider_id!r}, which is "
        f"not in the pool {asked[:100]!r}. Name a pool of the provider, or none.",
        param="model",
    )


def model_not_placed(alias: str) -> Problem:
    return Problem(
        400,
        "invalid_json",
        f"The model alias {alias!r} cannot be replaced, because the body is not "
        "well-formed JSON. Send well-formed JSON.",
        param="model",
    )


def model_not_here(alias: str, provider_id: str) -> Problem:
    return Problem(
        400,
        "model_not_here",
        f"The model alias {alias!r} refers to the provider {provider_id!r}, but this "
        "WebSocket is connected to another one. Open a separate WebSocket for this "
        "model.",
        param="model",
    )


def owner_limited(retry_after_ms: int) -> Problem:
    return Problem(
        429,
        "rate_limit_exceeded",
        "The only upstream account that can read this conversation's state is rate "
        "limited. Try again after the time in Retry-After.",
        headers=(retry_after(retry_after_ms),),
    )


def owner_unavailable(*, method: str, encrypted: bool) -> Problem:
    """The owning account has no working key left. Uses the upstream's own error codes,
    because clients recover from those (docs/upstream-api.md)."""
    cause = (
        "The upstream account that holds this conversation's state has no working "
        "key left. Start from the full history"
    )
    if method == "GET":
        code, message = "affinity_owner_unavailable", f"{cause}, or try again later."
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
