"""Requests whose proxy key is missing, invalid, limited, or may not do this."""

from collections.abc import Sequence

from services.gateway.errors.problem import Problem, retry_after

_CHALLENGE = (b"www-authenticate", b"Bearer")
_ALLOW = (
    "If all keys may see each other's objects, the operator can set "
    "PROXY_FOREIGN_IDS=allow."
)


def proxy_key_required() -> Problem:
    return Problem(
        401,
        "invalid_proxy_key",
        "This proxy requires a key of its own. Send it as Authorization: Bearer "
        "rpx_... or api-key: rpx_... (the API key of your client). The operator "
        "creates keys with POST /admin/keys.",
        headers=(_CHALLENGE,),
    )


def invalid_proxy_key(what: str) -> Problem:
    """`what` completes the sentence "This proxy key ..."."""
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
        "The proxy is starting and has not read its list of proxy keys yet. Try again.",
        headers=((b"retry-after", b"1"),),
    )


def key_limited(which: str, limit: int, wait_ms: int) -> Problem:
    return Problem(
        429,
        "rate_limit_exceeded",
        f"This proxy key has used its {limit} {which} per minute. Try again after the "
        "time in Retry-After, or ask the operator for a higher limit.",
        headers=(retry_after(wait_ms),),
    )


def budget_spent(owner: str, amount: str, end: str) -> Problem:
    """`owner`: "key 'ci'". No Retry-After: clients would ask until the window ends."""
    return Problem(
        429,
        "insufficient_quota",
        f"The budget of the {owner} is spent: {amount}. {end} The operator can raise "
        "it.",
        kind="insufficient_quota",
    )


def budget_nearly_spent(owner: str, left: int, may_use: int, end: str) -> Problem:
    return Problem(
        429,
        "insufficient_quota",
        f"The budget of the {owner} has {left} tokens left, and this request may use "
        f"{may_use} (its bytes and max_output_tokens). Ask for less. {end}",
        kind="insufficient_quota",
    )


def budget_reserved(owner: str) -> Problem:
    return Problem(
        429,
        "rate_limit_exceeded",
        f"Running requests may use what is left of the budget of the {owner}. Try "
        "again after the time in Retry-After.",
        headers=(retry_after(1000),),
    )


def spend_unknown(owner: str) -> Problem:
    return Problem(
        503,
        "not_ready",
        f"The proxy does not know at the moment what is left of the budget of the "
        f"{owner}. Try again.",
        headers=(retry_after(1000),),
    )


def pool_not_allowed(asked: str, allowed: Sequence[str]) -> Problem:
    return Problem(
        403,
        "pool_not_allowed",
        f"This proxy key may not use the pool {asked[:100]!r}. Its pools: "
        f"{', '.join(allowed)}. Name one of them, or none to use the first.",
        param="pool_id",
    )


def model_not_allowed(alias: str, pools: Sequence[str]) -> Problem:
    return Problem(
        403,
        "model_not_allowed",
        f"This proxy key may not use the model {alias!r}: the model's provider is in "
        f"none of the key's pools ({', '.join(pools)}). Use another model, or ask the "
        "operator for another key.",
        param="model",
    )


def endpoint_not_isolated(method: str, path: bytes) -> Problem:
    return Problem(
        403,
        "endpoint_not_isolated",
        f"Proxy keys may not use {method[:20]} /v1{path.decode('latin-1')[:200]}: its "
        "objects belong to the upstream account that all keys share, and the proxy "
        f"cannot tell which key made them. {_ALLOW}",
    )


def list_not_isolated(path: bytes) -> Problem:
    return Problem(
        403,
        "list_not_isolated",
        f"Proxy keys may not list /v1{path.decode('latin-1')[:200]}: the list would "
        "show objects of other keys. Keep the ids of the objects that your requests "
        f"create, and request those. {_ALLOW}",
    )


def bad_body(what: str) -> Problem:
    """`what` completes the sentence "The request body ..."."""
    return Problem(
        400,
        "invalid_json",
        f"The request body {what}. Otherwise the proxy cannot check which ids it "
        "names.",
    )


def unreadable_body() -> Problem:
    return bad_body(
        "is not one JSON object in UTF-8 with unique member names, uncompressed or "
        "compressed with gzip or zstd; send it in that form"
    )


def too_many_ids(limit: int) -> Problem:
    return Problem(
        400,
        "too_many_ids",
        f"The request names more than {limit} ids. Send items with their content, or "
        "continue from previous_response_id.",
    )


# Ids of other tenants are answered in the upstream's words for unknown ids, so that the
# answer does not reveal whether an id exists.


def unknown_response(id_: str) -> Problem:
    return Problem(
        400,
        "previous_response_not_found",
        f"Previous response with id '{id_}' not found.",
        param="previous_response_id",
    )


def unknown_file(id_: str) -> Problem:
    return Problem(404, None, f"No such File object: {id_}", param="id")


def unknown_object(name: str, id_: str) -> Problem:
    return Problem(404, None, f"{name} with id '{id_}' not found.")


def unknown_item(id_: str) -> Problem:
    return Problem(
        404,
        None,
        f"Item with id '{id_}' not found. Items are not persisted when `store` is set "
        "to false. Try again with `store` set to true, or remove this item from your "
        "input.",
        param="input",
    )


def ids_unverified() -> Problem:
    return Problem(
        503,
        "not_ready",
        "The proxy cannot check at the moment which tenant the ids in this request "
        "belong to. Try again.",
        headers=((b"retry-after", b"1"),),
    )
