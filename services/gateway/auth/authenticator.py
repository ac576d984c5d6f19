"""Authenticates requests by their proxy key. Uses this gateway's copy of the key table,
which stays valid while Redis is down."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from libs.common.errors import RedisAway
from libs.common.headers import Header, find
from libs.common.proxy_keys import MARK, Principal, secret_hash
from libs.common.redis.shared_connection import Refused
from services.gateway import errors

READ_AGAIN_S = 0.1  # between two reads of the key table for unknown keys
LONGEST_HEADER = 256  # bytes of a header that is cached; ours have 54
MOST_CACHED = 65_536  # headers; one key can be written with varying spaces
_MARK = MARK.encode()
Cache = dict[bytes, Principal]  # by the whole value of a header
_NOBODY: Mapping[str, Principal] = {}


class UnknownKey(Exception):
    """This gateway's copy of the key table lacks the key."""


class Table(Protocol):
    """The key table in Redis."""

    async def version(self) -> str | None: ...

    async def read(self) -> dict[str, Principal]: ...


class Authenticator:
    """Maps a request's `Authorization` header to the principal of its proxy key, or
    its `api-key` header (Azure-style clients) if the former has no proxy key.

    A request costs one dictionary lookup by the header's bytes. Its duration reveals
    nothing about other keys: the dictionary compares bytes only if their 64-bit hashes
    are equal, and the hash is seeded randomly for each process, so a partly correct
    guess takes no longer. Headers that are not cached are looked up by the SHA-256 of
    the key.
    """

    def __init__(
        self, table: Table, *, required: bool, clock: Callable[[], float] = time.time
    ) -> None:
        """`required`: refuse requests without a key (PROXY_REQUIRE_KEYS)."""
        self._table = table
        self._required = required
        self._version: str | None = None
        self._principals = _NOBODY  # by the hash of their key
        self._cached: Cache = {}
        self._cached_api_keys: Cache = {}
        self._clock = clock
        self._reading = asyncio.Lock()
        self._next_read: asyncio.Task[None] | None = None
        self._read_at = 0.0  # loop time

    @property
    def known(self) -> bool:
        """Was the key table ever read?"""
        return self._version is not None

    @property
    def ready(self) -> bool:
        """Can requests be authenticated?"""
        return self.known or not self._required

    @property
    def has_keys(self) -> bool:
        """Does any key exist?"""
        return bool(self._principals)

    @property
    def limits(self) -> bool:
        """Does any key have limits per minute?"""
        return any(p.limited for p in self._principals.values())

    async def refresh(self) -> None:
        """Reads the key table if it changed; called on each heartbeat. Ignores a Redis
        without a table, because the router writes it again. Raises `RedisAway`."""
        async with self._reading:
            try:
                version = await self._table.version()
                if version is None or version == self._version:
                    return
                principals = await self._table.read()
            except Refused as error:
                raise RedisAway(f"Redis refused the call: {str(error)[:80]}") from error
            self._version, self._principals = version, principals
            self._cached, self._cached_api_keys = {}, {}

    async def enter(self, headers: Sequence[Header]) -> Principal | None:
        """The same as `admit`, but reads the key table again before it refuses an
        unknown key, which may be new. Raises a `Problem`."""
        try:
            return self.admit(headers)
        except UnknownKey:
            pass  # nothing waits in a handler (docs/adr/0011-mypyc.md)
        await self._read_soon()
        try:
            return self.admit(headers)
        except UnknownKey:
            if not self.known:
                raise errors.keys_unknown() from None
            raise errors.invalid_proxy_key("is not known, or was revoked") from None

    def admit(self, headers: Sequence[Header]) -> Principal | None:
        """The principal of a request, None for one without a proxy key. Raises a
        `Problem`, or `UnknownKey`: then `enter` may find the key."""
        header = find(headers, b"authorization")
        principal = None if header is None else self._cached.get(header)
        if principal is None:
            principal = self._look_up(header, headers)
            if principal is None:
                self._refuse_if_required()
                return None
        expires_ms = principal.expires_at_ms
        if expires_ms is not None and expires_ms <= self._clock() * 1000:
            raise errors.invalid_proxy_key("has expired")
        if not principal.enabled:
            raise errors.invalid_proxy_key("is disabled")
        return principal

    def _refuse_if_required(self) -> None:
        """For requests without a proxy key. Where none is required clients send any
        key, because SDKs demand one."""
        if self._required:
            raise errors.proxy_key_required()

    def _look_up(
        self, authorization: bytes | None, headers: Sequence[Header]
    ) -> Principal | None:
        """The principal of an Authorization header that is not cached, or of an api-key
        header. A proxy key in Authorization decides, whatever is in the other one."""
        secret = None if authorization is None else _secret(authorization)
        if authorization is not None and secret is not None:
            return self._find(authorization, secret, self._cached)
        header = find(headers, b"api-key")
        if header is None:
            return None
        secret = header.strip()
        if not secret.startswith(_MARK):
            return None
        known = self._cached_api_keys.get(header)
        return known or self._find(header, secret, self._cached_api_keys)

    def _find(self, header: bytes, secret: bytes, cache: Cache) -> Principal:
        """The principal of a proxy key. An unknown one is refused even where keys are
        not required, or a revoked key would continue without its pools and limits."""
        principal = self._principals.get(secret_hash(secret))
        if principal is None:
            raise UnknownKey
        if len(header) <= LONGEST_HEADER:
            if len(cache) >= MOST_CACHED:
                cache.clear()
            cache[header] = principal
        return principal

    async def _read_soon(self) -> None:
        """Reads the key table once for all unknown keys of 100 ms. So a client that
        tries many keys costs Redis ten calls a second, and no state is kept."""
        if self._next_read is None:
            self._next_read = asyncio.create_task(self._read_later())
        await asyncio.shield(self._next_read)

    async def _read_later(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._read_at + READ_AGAIN_S - loop.time())
        # Keys created from here on need another read.
        self._next_read, self._read_at = None, loop.time()
        with suppress(RedisAway):
            await self.refresh()


def _secret(header: bytes) -> bytes | None:
    """The proxy key in an Authorization header, if there is one."""
    scheme, _, token = header.partition(b" ")
    token = token.strip()
    if token.startswith(_MARK) and scheme.lower() == b"bearer":
        return token
    return None
