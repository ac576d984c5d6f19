"""Requests that name a model alias: checks access, and replaces the model."""

from collections.abc import Sequence

import msgspec

from libs.common.bodies.scanner import Scan
from libs.common.bodies.set_model import with_model
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import AliasTarget, session_within
from services.gateway import errors
from services.gateway.auth.authenticator import pool_for
from services.gateway.proxy.context import Exchange


def follow(
    exchange: Exchange,
    alias: AliasTarget,
    principal: Principal | None,
    asked: str | None,
) -> None:
    """Routes a request to the alias's provider. `asked` is the pool that the request
    names. Raises a `Problem` when the request may not use the provider: it must be in
    the named pool, if any, and in one of the key's pools, if those are limited."""
    exchange.alias = alias
    exchange.record.upstream_model = alias.upstream_id
    if principal is not None:
        exchange.principal = principal
        exchange.record.proxy_key_id = principal.id
        exchange.record.team_id = principal.team_id
        if asked is not None:
            asked = pool_for(principal, asked)
        allowed = _allowed(principal)
        if allowed and alias.pool_ids.isdisjoint(allowed):
            raise errors.model_not_allowed(alias.alias, allowed)
    if not alias.open:
        raise errors.alias_leads_nowhere(alias.alias, alias.provider_id)
    if not alias.passes(asked):
        raise errors.model_not_in_pool(alias.alias, alias.provider_id, asked or "")
    hints, record = exchange.hints, exchange.record
    record.pool_id = alias.pool
    exchange.session = session_within(
        hints.session_id, alias.pool, exchange.asker.tenant
    )
    # The upstream's rate limits are those of its own model name.
    exchange.hints = msgspec.structs.replace(
        hints, pool_id=alias.pool, model=alias.upstream_id
    )


def _allowed(principal: Principal) -> Sequence[str]:
    return (principal.pool_id,) if principal.pool_id else principal.pools


def splice(
    exchange: Exchange, alias: AliasTarget, plain: bytes, scan: Scan | None = None
) -> None:
    """Replaces the alias in the request's body. A compressed body is sent decompressed.
    Raises a `Problem`."""
    opened, exchange.body = plain is not exchange.body, spliced(plain, alias, scan)
    if opened:
        exchange.headers = [h for h in exchange.headers if h[0] != b"content-encoding"]


def spliced(plain: bytes, alias: AliasTarget, scan: Scan | None = None) -> bytes:
    """`plain` with the provider's name for the model. `scan`: the scan of a large
    body, if its hints were read in steps. Raises a `Problem`."""
    body = with_model(plain, alias.upstream_id, scan)
    if body is None:
        raise errors.model_not_placed(alias.alias)
    return body
