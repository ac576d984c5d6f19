"""Who sends a request: proxy key to principal, and the pools it may use. Decides from
this gateway's copy of the key table, which stays in force while Redis is away."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from libs.common.errors import RedisAway
from libs.common.headers import Header, find
from libs.common.proxy_keys import MARK, Principal, Reached, secret_hash
from libs.common.redis.shared_connection import Refused
from services.gateway import errors
from services.gateway.errors import Problem

LOOK_AGAIN_S = 0.1  # between two looks for keys that were minted a moment ago
LONGEST_HEADER = 256  # bytes; ours are 54, and longer ones are not remembered
MOST_CACHED = 65_536  # headers; a key may be spelled with more or less space
_MARK = MARK.encode()
_NOBODY: Mapping[str, Principal] = {}


class UnknownKey(Exception):
    """A key that this gateway's copy of the table does not hold."""


class Table(Protocol):
    """The key table in Redis."""

    async def version(self) -> str | None: ...

    async def read(self) -> dict[str, Principal]: ...


class Authenticator:
    """Admits requests by their `Authorization` header; no other carries our keys.

    A request costs one look into a dictionary by that header's bytes. This gives
    away nothing by its time: bytes are compared only with bytes of the same
    64-bit hash, which is seeded anew in each process, so no guess that is partly
    right takes longer; and a header that is not remembered is looked for by its
    SHA-256, of which nobody can choose a part.
    """

    def __init__(self, table: Table, *, required: bool) -> None:
        """`required`: nobody comes in without a key (PROXY_REQUIRE_KEYS)."""
        self._table = table
        self._required = required
        self._version: str | None = None
        self._principals = _NOBODY
        self._remembered: dict[bytes, Principal] = {}
        self._reading = asyncio.Lock()
        self._look: asyncio.Task[None] | None = None
        self._looked_at = 0.0  # loop time

    @property
    def known(self) -> bool:
        """Was there ever a table?"""
        return self._version is not None

    @property
    def ready(self) -> bool:
        """Can anybody be admitted?"""
        return self.known or not self._required

    @property
    def has_keys(self) -> bool:
        """Does anybody hold a key?"""
        return bool(self._principals)

    @property
    def limits(self) -> bool:
        """Does any key have limits?"""
        return any(p.limited for p in self._principals.values())

    async def refresh(self) -> None:
        """Read the table anew if it changed: with each heartbeat. An emptied Redis
        changes nothing: the router fills it again. Raises `RedisAway`."""
        async with self._reading:
            try:
                version = await self._table.version()
                if version is None or version == self._version:
                    return
                principals = await self._table.read()
            except Refused as error:
                raise RedisAway(f"Redis refuses: {str(error)[:80]}") from error
            self._version, self._principals = version, principals
            self._remembered = {}

    async def enter(self, headers: Sequence[Header], now_s: float) -> Principal | None:
        """Who sends a request; None for anybody. A key may have been minted a moment
        ago, so one that is not known is looked for. Raises a `Problem`."""
        try:
            return self.admit(headers, now_s)
        except UnknownKey:
            await self._look_for_news()
        try:
            return self.admit(headers, now_s)
        except UnknownKey:
            if not self.known:
                raise errors.keys_unknown() from None
            raise errors.invalid_proxy_key("is not known, or was revoked") from None

    def admit(self, headers: Sequence[Header], now_s: float) -> Principal | None:
        """The same from what this gateway knows. Raises `UnknownKey` too."""
        header = find(headers, b"authorization")
        if header is None:
            self._refuse_if_required()
            return None
        principal = self._remembered.get(header)
        if principal is None:
            secret = _secret(header)
            if secret is None:
                self._refuse_if_required()
                return None
            principal = self._find(header, secret)
        expires_ms = principal.expires_at_ms
        if expires_ms is not None and expires_ms <= now_s * 1000:
            raise errors.invalid_proxy_key("has expired")
        if not principal.enabled:
            raise errors.invalid_proxy_key("is disabled")
        return principal

    def _refuse_if_required(self) -> None:
        """Without one of our keys: clients must send some key, and send any."""
        if self._required:
            raise errors.proxy_key_required()

    def _find(self, header: bytes, secret: bytes) -> Principal:
        """A key of ours is never taken for any key, even where none is required: a
        revoked or mistyped one would go on without its pools and limits."""
        principal = self._principals.get(secret_hash(secret))
        if principal is None:
            raise UnknownKey
        if len(header) <= LONGEST_HEADER:
            if len(self._remembered) >= MOST_CACHED:
                self._remembered.clear()
            self._remembered[header] = principal
        return principal

    async def _look_for_news(self) -> None:
        """One question to Redis for all unknown keys of 100 ms together: whoever
        tries many costs it nothing, and none has to be remembered."""
        if self._look is None:
            self._look = asyncio.create_task(self._look_soon())
        await asyncio.shield(self._look)

    async def _look_soon(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._looked_at + LOOK_AGAIN_S - loop.time())
        # The question leaves now: keys minted from here on need another one.
        self._look, self._looked_at = None, loop.time()
        with suppress(RedisAway):
            await self.refresh()


def over_limit(principal: Principal, reached: Reached) -> Problem:
    """The answer when one of a key's limits is reached."""
    limits = {
        "requests": principal.requests_per_minute,
        "tokens": principal.tokens_per_minute,
    }
    limit = limits.get(reached.which) or 0
    return errors.key_limited(reached.which, limit, reached.wait_ms)


def _secret(header: bytes) -> bytes | None:
    """The proxy key in an Authorization header, if there is one."""
    scheme, _, token = header.partition(b" ")
    token = token.strip()
    if token.startswith(_MARK) and scheme.lower() == b"bearer":
        return token
    return None
