"""What the policies of a proxy key and its team allow. Pure."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import unquote_to_bytes

from libs.common.bodies.hints import MULTIPART, UNREADABLE, Hints
from libs.common.proxy_keys import EFFORTS, Policy
from services.gateway import errors

# Requests for an answer: what they ask for is in a JSON body.
ANSWERS = frozenset({b"/responses", b"/chat/completions", b"/completions"})
# Endpoints whose requests name a model, the others of which have none.
WITH_MODEL = ANSWERS | {
    b"/responses/compact",
    b"/responses/input_tokens",
    b"/embeddings",
    b"/moderations",
    b"/images/generations",
    b"/images/edits",
    b"/images/variations",
    b"/audio/speech",
    b"/audio/transcriptions",
    b"/audio/translations",
    b"/videos",
    b"/batches",
    b"/fine_tuning/jobs",
    b"/realtime/sessions",
    b"/realtime/client_secrets",
    b"/assistants",
    b"/threads/runs",
    b"/evals",
}
DEFAULT_EFFORT = "medium"
# The project of the upstream decides.
FREE_TIERS = (None, "auto")
MODELS = b"/models"
# What a key may ask about itself, whatever its policy.
ME = b"/proxy/me"

Network = IPv4Network | IPv6Network


def check_caller(policies: Iterable[Policy], path: bytes, address: str) -> None:
    """Whether the client at `address` may use the endpoint `path` (below /v1). Raises
    a `Problem`."""
    for policy in policies:
        if policy.ip_allow and not _within(address, policy.ip_allow):
            raise errors.address_not_allowed(address)
        if policy.endpoints and not _is_below(plain_path(path), policy.endpoints):
            raise errors.endpoint_not_allowed(path, policy.endpoints)


def check_request(
    policies: Iterable[Policy],
    method: str,
    path: bytes,
    hints: Hints,
    sent: Sequence[str] = (),
) -> None:
    """Whether a request may ask for what it asks for. `sent`: the names that may go
    upstream instead of the one it has. Raises a `Problem`."""
    if method not in ("POST", "WS"):
        return
    asks = plain_path(path)
    for policy in policies:
        if policy.models and (asks in WITH_MODEL or hints.model is not None):
            _check_model(policy, hints, sent)
        if asks in ANSWERS:
            _check_answer(policy, hints)


def _check_model(policy: Policy, hints: Hints, sent: Sequence[str]) -> None:
    model = hints.model
    if model is None:
        raise errors.model_not_named(policy.models, hints.problem == MULTIPART)
    if not _lists(policy, model, sent):
        raise errors.model_not_in_policy(model, policy.models)


def allows_model(
    policies: Iterable[Policy], model: str, sent: Sequence[str] = ()
) -> bool:
    """Whether requests may ask for a model. `sent`: as for `check_request`."""
    return all(not p.models or _lists(p, model, sent) for p in policies)


def _lists(policy: Policy, model: str, sent: Sequence[str]) -> bool:
    return _matches(model, policy.models) or (
        bool(sent) and all(_matches(name, policy.models) for name in sent)
    )


def _check_answer(policy: Policy, hints: Hints) -> None:
    effort, tier = policy.max_reasoning_effort, hints.service_tier
    limit = policy.max_output_tokens
    if not (effort or policy.service_tiers or limit):
        return
    if hints.problem in (UNREADABLE, MULTIPART):
        raise errors.unreadable_body()
    if effort and not _at_most(hints.effort or DEFAULT_EFFORT, effort):
        raise errors.effort_not_allowed(hints.effort, effort)
    if policy.service_tiers and tier not in FREE_TIERS + policy.service_tiers:
        raise errors.tier_not_allowed(tier or "", policy.service_tiers)
    if limit and not 0 < (hints.max_output_tokens or 0) <= limit:
        raise errors.output_not_limited(hints.max_output_tokens, limit)


def most_tokens(method: str, path: bytes, hints: Hints, size: int) -> int:
    """The tokens that a request may use, for a budget that reserves them: no token is
    shorter than a byte of the `size` of its body. Raises a `Problem` when the request
    does not limit its output."""
    if method not in ("POST", "WS"):
        return 0
    if plain_path(path) not in ANSWERS:
        return size
    output = hints.max_output_tokens
    if output is None or output <= 0:
        raise errors.output_not_reserved()
    return size + output


def _at_most(effort: str, most: str) -> bool:
    """An effort that is not known may be any."""
    return effort in EFFORTS and EFFORTS.index(effort) <= EFFORTS.index(most)


def plain_path(path: bytes) -> bytes:
    """The path as the most lenient upstream reads it."""
    parts = unquote_to_bytes(path).lower().split(b"/")
    return b"/" + b"/".join(filter(None, parts))


def _is_below(path: bytes, endpoints: Iterable[str]) -> bool:
    if path in (MODELS, ME) or path.startswith(MODELS + b"/"):
        return True
    text = path.decode("latin-1")[1:]
    return any(text == own or text.startswith(own + "/") for own in endpoints)


@lru_cache(4096)
def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


@lru_cache(4096)
def _within(address: str, allowed: tuple[str, ...]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in _networks(allowed))


@lru_cache(1024)
def _networks(allowed: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(network) for network in allowed)
