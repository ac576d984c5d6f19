"""Requests that name a model alias: checks access, and replaces the model."""

from collections.abc import Sequence

import msgspec

from libs.common.bodies.scanner import Scan
from libs.common.bodies.set_model import with_model
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import Way, session_within
from services.gateway import errors
from services.gateway.auth.authenticator import pool_for
from services.gateway.proxy.context import Exchange


def follow(
    exchange: Exchange, way: Way, principal: Principal | None, asked: str | None
) -> None:
    """Routes a request to the alias's provider. `asked` is the pool that the request
    names. Raises a `Problem` when the request may not use the provider: it must be in
    the named pool, if any, and in one of the key's pools, if those are limited."""
    exchange.way = way
    exchange.record.upstream_model = way.upstream_id
    if principal is not None:
        exchange.principal = principal
        exchange.record.proxy_key_id = principal.id
        exchange.record.team_id = principal.team_id
        if asked is not None:
            asked = pool_for(principal, asked)
        allowed = _allowed(principal)
        if allowed and way.pool_ids.isdisjoint(allowed):
            raise errors.model_not_allowed(way.alias, allowed)
    if not way.open:
        raise errors.alias_leads_nowhere(way.alias, way.provider_id)
    if not way.passes(asked):
        raise errors.model_not_in_pool(way.alias, way.provider_id, asked or "")
    hints, record = exchange.hints, exchange.record
    record.pool_id = way.pool
    exchange.session = session_within(hints.session_id, way.pool, exchange.asker.tenant)
    # The upstream's rate limits are those of its own model name.
    exchange.hints = msgspec.structs.replace(
        hints, pool_id=way.pool, model=way.upstream_id
    )


def _allowed(principal: Principal) -> Sequence[str]:
    return (principal.pool_id,) if principal.pool_id else principal.pools


def splice(
    exchange: Exchange, way: Way, plain: bytes, scan: Scan | None = None
) -> None:
    """Replaces the alias in the request's body. A compressed body is sent decompressed.
    Raises a `Problem`."""
    opened, exchange.body = plain is not exchange.body, spliced(plain, way, scan)
    if opened:
        exchange.headers = [h for h in exchange.headers if h[0] != b"content-encoding"]


def spliced(plain: bytes, way: Way, scan: Scan | None = None) -> bytes:
    """`plain` with the provider's name for the model. `scan`: the scan of a large
    body, if its hints were read in steps. Raises a `Problem`."""
    body = with_model(plain, way.upstream_id, scan)
    if body is None:
        raise errors.model_not_placed(way.alias)
    return body
