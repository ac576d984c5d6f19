"""Authentication and the limits per minute of proxy keys, for both planes."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from libs.common.errors import RedisAway
from libs.common.headers import Header
from libs.common.proxy_keys import Principal
from libs.common.redis.key_table import KeyLimits
from libs.common.redis.shared_connection import Refused
from services.gateway.auth.authenticator import Authenticator, over_limit


class AccessControl:
    """Admits requests and counts those of limited keys. Limits are not enforced while
    Redis is down."""

    def __init__(
        self, authenticator: Authenticator, limits: KeyLimits, *, strict: bool = False
    ) -> None:
        """`strict`: keys may name only objects that their tenant made through this
        proxy."""
        self._authenticator = authenticator
        self._limits = limits
        self.strict = strict
        self.admit = authenticator.admit  # bound once, because each request calls it

    @property
    def has_keys(self) -> bool:
        """Does any key exist? If so, some ids belong to tenants."""
        return self._authenticator.has_keys

    async def enter(self, headers: Sequence[Header]) -> Principal | None:
        """See `Authenticator.enter`."""
        return await self._authenticator.enter(headers)

    async def count(self, principal: Principal | None) -> None:
        """Counts one request. Raises a `Problem` when a limit is reached."""
        if principal is None or not principal.limited:
            return
        reached = None
        with suppress(RedisAway, Refused):
            reached = await self._limits.count(principal)
        if reached is not None:
            raise over_limit(principal, reached)

    def spend(self, principal: Principal | None, tokens: int | None) -> None:
        """Counts the tokens of an answer, without waiting for Redis."""
        if principal is None or not tokens or not principal.tokens_per_minute:
            return
        sent = asyncio.ensure_future(self._limits.spend(principal.id, tokens))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())
