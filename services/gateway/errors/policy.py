"""Requests that the policy of a proxy key or of its team does not allow."""

from collections.abc import Sequence

from services.gateway.errors.problem import Problem

_OR_ASK = "or ask the operator to change the policy of the key or of its team"


def _listed(allowed: Sequence[str]) -> str:
    """The first of them; a policy may have many, and long ones."""
    first = ", ".join(entry[:40] for entry in allowed[:5])
    return first + (", ..." if len(allowed) > 5 else "")


def model_not_in_policy(model: str, globs: Sequence[str]) -> Problem:
    return Problem(
        403,
        "model_not_allowed",
        f"This proxy key may not use the model {model[:60]!r}. It may use: "
        f"{_listed(globs)}. Use one of them, {_OR_ASK}.",
        param="model",
    )


def unknown_model(model: str) -> Problem:
    """As the upstream answers, so that a key cannot tell what it may not use from what
    does not exist."""
    return Problem(
        404,
        "model_not_found",
        f"The model '{model[:200]}' does not exist or you do not have access to it.",
        param="model",
    )


def model_not_named(globs: Sequence[str], in_form: bool) -> Problem:
    what = (
        "The proxy cannot read the model of a form"
        if in_form
        else "The request names no model"
    )
    return Problem(
        403,
        "model_not_allowed",
        f"{what}, and this proxy key may use only: {_listed(globs)}. Name one of them "
        f"in `model`, {_OR_ASK}.",
        param="model",
    )


def endpoint_not_allowed(path: bytes, endpoints: Sequence[str]) -> Problem:
    return Problem(
        403,
        "endpoint_not_allowed",
        f"This proxy key may not use /v1{path.decode('latin-1')[:200]}. It may use: "
        f"{_listed([f'/v1/{endpoint}' for endpoint in endpoints])}. Use one of them, "
        f"{_OR_ASK}.",
    )


def address_not_allowed(address: str) -> Problem:
    return Problem(
        403,
        "address_not_allowed",
        f"This proxy key may not be used from the address {address[:60] or 'unknown'}. "
        f"Use it from its own network, {_OR_ASK}.",
    )


def effort_not_allowed(asked: str | None, most: str) -> Problem:
    what = f"{asked[:40]!r}" if asked else "none, which counts as 'medium'"
    return Problem(
        403,
        "reasoning_effort_not_allowed",
        f"This proxy key may use a reasoning effort of at most {most!r}; the request "
        f"has {what}. Set reasoning.effort to at most {most!r}, {_OR_ASK}.",
        param="reasoning.effort",
    )


def tier_not_allowed(asked: str, allowed: Sequence[str]) -> Problem:
    return Problem(
        403,
        "service_tier_not_allowed",
        f"This proxy key may not use the service tier {asked[:40]!r}. It may use: "
        f"{_listed(allowed)}. Use one of them or none, {_OR_ASK}.",
        param="service_tier",
    )


def output_not_reserved() -> Problem:
    return Problem(
        400,
        "max_output_tokens_required",
        "The budget of this proxy key, or of its team, reserves the tokens that a "
        "request may use. Send max_output_tokens.",
        param="max_output_tokens",
    )


def output_not_limited(asked: int | None, most: int) -> Problem:
    what = "states no limit" if asked is None else f"has {asked}"
    return Problem(
        403,
        "max_output_tokens_not_allowed",
        f"This proxy key may ask for at most {most} output tokens; the request {what}. "
        f"Set max_output_tokens to at most {most}, {_OR_ASK}.",
        param="max_output_tokens",
    )
