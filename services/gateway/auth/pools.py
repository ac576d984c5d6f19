"""Which pools a proxy key may use. Pure."""

from libs.common.proxy_keys import Principal
from services.gateway import errors


def pool_for(principal: Principal, asked: str | None) -> str | None:
    """The pool of a request that names `asked`. Raises a `Problem`.

    A pinned key uses its pool, whatever the request names. A limited key uses one of
    its pools, and the first of them when the request names none, so that clients that
    do not know pools work unchanged."""
    if principal.pool_id is not None:
        return principal.pool_id
    if not principal.pools:
        return asked
    if asked is None:
        return principal.pools[0]
    if asked not in principal.pools:
        raise errors.pool_not_allowed(asked, principal.pools)
    return asked
