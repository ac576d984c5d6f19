"""Proxy keys at the door of both planes: who comes, and within what limits."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress

from libs.common.errors import RedisAway
from libs.common.headers import Header
from libs.common.proxy_keys import KeyLimits, Principal
from libs.common.redis.shared_connection import Refused
from services.gateway.auth.authenticator import Authenticator, over_limit


class AccessControl:
    """Admits requests, and counts those of keys that have limits. While Redis is away
    limits are not enforced: traffic goes on."""

    def __init__(
        self, authenticator: Authenticator, limits: KeyLimits, *, strict: bool = False
    ) -> None:
        """`strict`: keys may name only what their tenant made through this proxy."""
        self._authenticator = authenticator
        self._limits = limits
        self.strict = strict

    @property
    def has_keys(self) -> bool:
        """Does anybody hold a key? Then there are ids that are not everybody's."""
        return self._authenticator.has_keys

    def admit(self, headers: Sequence[Header]) -> Principal | None:
        """Who comes, by what this gateway knows. Raises a `Problem`, or `UnknownKey`:
        then `enter` may know."""
        return self._authenticator.admit(headers, time.time())

    async def enter(self, headers: Sequence[Header]) -> Principal | None:
        """The same, after a look at keys that were minted a moment ago. Raises a
        `Problem`."""
        return await self._authenticator.enter(headers, time.time())

    async def count(self, principal: Principal | None) -> None:
        """Count one request. Raises a `Problem` when a limit is reached."""
        if principal is None or not principal.limited:
            return
        reached = None
        with suppress(RedisAway, Refused):
            reached = await self._limits.count(principal)
        if reached is not None:
            raise over_limit(principal, reached)

    def spend(self, principal: Principal | None, tokens: int | None) -> None:
        """Count an answer's tokens. On its way when this returns."""
        if principal is None or not tokens or not principal.tokens_per_minute:
            return
        sent = asyncio.ensure_future(self._limits.spend(principal.id, tokens))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())
