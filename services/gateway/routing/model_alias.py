"""A request that names a model alias: where it may go, and what is sent there."""

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
    """Note whose request this is, and that it goes to the alias's provider. `asked` is
    the pool it names. Raises a `Problem` when it may not go there.

    A pool narrows what an alias may lead to, and never widens it: the provider has to
    be in the pool that the request names, and in one of those its key may use."""
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
    # The upstream limits its model, whatever we call it.
    exchange.hints = msgspec.structs.replace(
        hints, pool_id=way.pool, model=way.upstream_id
    )


def _allowed(principal: Principal) -> Sequence[str]:
    return (principal.pool_id,) if principal.pool_id else principal.pools


def splice(
    exchange: Exchange, way: Way, plain: bytes, scan: Scan | None = None
) -> None:
    """Have the provider's model asked for. What came compressed leaves as it was
    opened. Raises a `Problem`."""
    opened, exchange.body = plain is not exchange.body, spliced(plain, way, scan)
    if opened:
        exchange.headers = [h for h in exchange.headers if h[0] != b"content-encoding"]


def spliced(plain: bytes, way: Way, scan: Scan | None = None) -> bytes:
    """`plain` with the provider's name of the model. `scan`: that of a body whose
    hints took steps. Raises a `Problem`."""
    body = with_model(plain, way.upstream_id, scan)
    if body is None:
        raise errors.model_not_placed(way.alias)
    return body
