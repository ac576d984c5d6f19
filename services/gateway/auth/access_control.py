"""Authentication of proxy keys, their policies and limits, for both planes."""

from collections.abc import Sequence
from contextlib import suppress

from libs.common.bodies.hints import Hints
from libs.common.errors import NoCatalogue, RedisAway
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.routing.aliases import Targets
from services.gateway.auth.authenticator import Authenticator
from services.gateway.auth.client_address import Trusted, client_address
from services.gateway.auth.key_usage import Counts, KeyUsage, read_usage
from services.gateway.auth.policy import check_caller, check_request
from services.gateway.auth.quotas import Quotas


class AccessControl:
    """Admits requests. Acquire counts those of keys with limits."""

    def __init__(
        self,
        authenticator: Authenticator,
        counts: Counts,
        *,
        strict: bool = False,
        balancers: Trusted = (),
    ) -> None:
        """`strict`: keys may name only objects that their tenant made through this
        proxy. `balancers`: whose X-Forwarded-For is believed."""
        self._counts = counts
        self._authenticator = authenticator
        self.quotas = Quotas()
        # The limits of a key for a request that is accepted at a moment.
        self.quota_of = self.quotas.of
        self.strict = strict
        self._balancers = balancers
        self.admit = authenticator.admit  # bound once, because each request calls it

    @property
    def has_keys(self) -> bool:
        """Does any key exist? If so, some ids belong to tenants."""
        return self._authenticator.has_keys

    async def enter(self, headers: Sequence[Header]) -> Principal | None:
        """See `Authenticator.enter`."""
        return await self._authenticator.enter(headers)

    def check_caller(
        self,
        principal: Principal | None,
        path: bytes,
        peer: object,
        headers: Sequence[Header],
    ) -> None:
        """Raises a `Problem` when policies do not allow the endpoint or the client's
        address. `peer`: of its connection."""
        if principal is not None and principal.policies:
            address = client_address(peer, headers, self._balancers)
            check_caller(principal.policies, path, address)

    def check_request(
        self,
        principal: Principal | None,
        method: str,
        path: bytes,
        hints: Hints,
        targets: Targets | None,
    ) -> None:
        """Raises a `Problem` when policies do not allow what is asked for, of `targets`
        if the model is an alias."""
        if principal is not None and principal.policies:
            sent = tuple(target.upstream_id for target in targets or ())
            check_request(principal.policies, method, path, hints, sent)

    async def usage(self, principal: Principal) -> KeyUsage | None:
        """What a key used; None while Redis is down."""
        with suppress(RedisAway, NoCatalogue):
            return await read_usage(self._counts, principal)
        return None
