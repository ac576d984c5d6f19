"""Requests that name a model alias: where they may go, and what is sent there. Pure."""

from collections.abc import Sequence

from libs.common.bodies.scanner import Scan
from libs.common.bodies.set_model import with_model
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import AliasTarget, Targets
from services.gateway import errors
from services.gateway.auth.pools import pool_for
from services.gateway.errors import Problem


def allowed_targets(
    targets: Targets, principal: Principal | None, asked: str | None
) -> Targets:
    """The targets of an alias that a request may go to. Raises the `Problem` of the
    first one if there is none."""
    kept, refused = [], None
    for target in targets:
        try:
            check_alias(target, principal, asked)
        except Problem as problem:
            refused = refused or problem
        else:
            kept.append(target)
    if refused is not None and not kept:
        raise refused
    return tuple(kept)


def check_alias(
    alias: AliasTarget, principal: Principal | None, asked: str | None
) -> None:
    """May a request follow the alias to its provider? `asked` is the pool that the
    request names. Raises a `Problem`.

    A pool narrows what an alias may lead to, and never widens it: the provider must be
    in the pool that the request names, and in one of those its key may use."""
    if principal is not None:
        if asked is not None:
            asked = pool_for(principal, asked)
        allowed = _allowed(principal)
        if allowed and alias.pool_ids.isdisjoint(allowed):
            raise errors.model_not_allowed(alias.alias, allowed)
    if not alias.open:
        raise errors.alias_leads_nowhere(alias.alias, alias.provider_id)
    if not alias.passes(asked):
        raise errors.model_not_in_pool(alias.alias, alias.provider_id, asked or "")


def _allowed(principal: Principal) -> Sequence[str]:
    return (principal.pool_id,) if principal.pool_id else principal.pools


def with_alias_model(
    plain: bytes, alias: AliasTarget, scan: Scan | None = None
) -> bytes:
    """`plain` with the provider's name of the model. `scan`: that of a body whose
    hints took steps. Raises a `Problem`."""
    body = with_model(plain, alias.upstream_id, scan)
    if body is None:
        raise errors.model_not_placed(alias.alias)
    return body
